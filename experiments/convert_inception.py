"""Convert the published weights of Inception-v3 from PyTorch to safetensors, without PyTorch.

    python -m experiments.convert_inception \
        --torch=pt_inception-2015-12-05-6726825d.pth --out=inception.safetensors

The file is in the release "fid_weights" of https://github.com/mseitzer/pytorch-fid; others are
refused by their sha256, unless --sha256 names one that you trust. Nothing is unpickled. The command
prints the sha256 of the new file, which `lgd.metrics.inception.load` requires.
"""

import argparse

from experiments import console
from experiments.console import local_path
from lgd.metrics.inception.weights import PUBLISHED_SHA256, convert


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--torch", type=local_path, required=True, help="the published file")
    parser.add_argument("--out", type=local_path, required=True, help="safetensors file to write")
    parser.add_argument("--sha256", default=PUBLISHED_SHA256, help="of the file to read")
    args = parser.parse_args()
    with console.in_words(ValueError):
        written = convert(args.torch, args.out, sha256=args.sha256)
    console.say(f"{args.out}: sha256 {written}")


if __name__ == "__main__":
    console.command(main)
