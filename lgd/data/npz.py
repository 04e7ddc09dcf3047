"""Images of one's own in a .npz file: uint8 arrays x, y for training and xt, yt for test."""

from pathlib import Path

from lgd.data import image_files
from lgd.data.dataset import Dataset


def load(
    path: str | Path, num_train: int, num_validation: int, num_test: int, *, seed: int = 0
) -> Dataset:
    """Images (n, h, w, channels) in [-1, 1], shuffled by seed; see `image_files.dataset`.

    Train and validation are disjoint parts of x, test is part of xt. Raises DataFileError.
    """
    training, testing = image_files.read_npz(path)
    class_names = tuple(str(label) for label in range(int(training.labels.max()) + 1))
    sizes = (num_train, num_validation, num_test)
    return image_files.dataset(path, training, testing, sizes, class_names, seed=seed)
