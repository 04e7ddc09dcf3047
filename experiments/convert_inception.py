"""The published weights of Inception-v3, from PyTorch's format to safetensors, without PyTorch.

    python -m experiments.convert_inception \
        --torch=pt_inception-2015-12-05-6726825d.pth --out=inception.safetensors

The file is the one of the release "fid_weights" of https://github.com/mseitzer/pytorch-fid; any
other is refused by its sha256 (--sha256 names another that you trust). Nothing is unpickled. Prints
the sha256 of what it writes, which `lgd.metrics.inception.load` asks for.
"""

import argparse
import sys
from pathlib import Path

from lgd.machinery import digests
from lgd.machinery.storage import save_params
from lgd.metrics.inception import torch_file
from lgd.metrics.inception.weights import PUBLISHED_SHA256, from_torch


def convert(source: Path, out: Path, *, sha256: str = PUBLISHED_SHA256) -> str:
    """Write the parameters; returns the sha256 of the file written, the same for the same source.

    Raises FileNotFoundError, or ValueError naming the file and what does not fit.
    """
    if not source.is_file():
        raise FileNotFoundError(f"{source}: expected a PyTorch file, found none")
    got = digests.of_file(source)
    if got != sha256:
        raise ValueError(f"{source}: expected a file of sha256 {sha256}, got {got}")
    tensors = torch_file.read(source)
    try:
        params = from_torch(tensors)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    save_params(out, params)
    return digests.of_file(out)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--torch", type=Path, required=True, help="the published file")
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--sha256", default=PUBLISHED_SHA256, help="of the file to read")
    given = parser.parse_args()
    try:
        written = convert(given.torch, given.out, sha256=given.sha256)
    except (OSError, ValueError) as error:
        sys.exit(f"convert_inception: {error}")
    print(f"{given.out}: sha256 {written}")


if __name__ == "__main__":
    main()
