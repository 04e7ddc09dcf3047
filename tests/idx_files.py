"""Small sets of images in the format of MNIST, written by hand."""

import gzip
import struct

import numpy as np

from lgd.data.image_files import IDX_FILES


def images_and_labels(train=240, test=120, size=(28, 28), num_classes=10):
    """Images of noise, x and xt, and their labels, y and yt."""
    rng = np.random.default_rng(0)

    def images(count):
        return rng.integers(0, 256, (count, *size), np.uint8)

    def labels(count):
        return (np.arange(count) % num_classes).astype(np.uint8)

    return {"x": images(train), "y": labels(train), "xt": images(test), "yt": labels(test)}


def idx_bytes(values):
    """A file of an array of bytes."""
    head = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    return head + values.tobytes()


def idx_folder(path, values, gzipped=()):
    """Write the four files, some of them gzipped; the folder."""
    path.mkdir(exist_ok=True)
    for key, name in IDX_FILES.items():
        content = idx_bytes(values[key])
        if key in gzipped:
            (path / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))
        else:
            (path / name).write_bytes(content)
    return path


def gzipped_folder(path, values):
    """Write the four files, all of them gzipped; the folder."""
    return idx_folder(path, values, gzipped=IDX_FILES)
