"""Convert the published weights of Inception-v3 from PyTorch to safetensors, without PyTorch.

    python -m experiments.convert_inception \
        --torch=pt_inception-2015-12-05-6726825d.pth --out=inception.safetensors

The file is in the release "fid_weights" of https://github.com/mseitzer/pytorch-fid; others are
refused by their sha256, unless --sha256 names one that you trust. Nothing is unpickled. The command
prints the sha256 of the new file, which `lgd.metrics.inception.load` requires.
"""

import argparse
import sys
from pathlib import Path

from lgd.machinery import digests
from lgd.machinery.storage import save_params
from lgd.metrics.inception import torch_file
from lgd.metrics.inception.weights import PUBLISHED_SHA256, from_torch


def convert(source: Path, out: Path, *, sha256: str = PUBLISHED_SHA256) -> str:
    """Write the parameters and return the sha256 of the file, which depends on the source alone.

    Args:
      source: PyTorch file.
      out: safetensors file to write.
      sha256: expected sha256 of the source.

    Raises:
      FileNotFoundError: without a source.
      ValueError: naming the source, for another sha256 or tensors that do not fit.
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
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--torch", type=Path, required=True, help="the published file")
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--sha256", default=PUBLISHED_SHA256, help="of the file to read")
    args = parser.parse_args()
    try:
        written = convert(args.torch, args.out, sha256=args.sha256)
    except (OSError, ValueError) as error:
        sys.exit(f"convert_inception: {error}")
    print(f"{args.out}: sha256 {written}")


if __name__ == "__main__":
    main()
