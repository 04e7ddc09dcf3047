"""The command that converts Inception-v3, and the comparison with PyTorch's ports."""

import re
import sys

import pytest

from experiments import convert_inception
from experiments.benchmarks.checks import inception_agreement
from lgd.metrics import inception


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"other", f"{inception.PUBLISHED_SHA256}, got "),
        (None, r"published\.pth: expected a PyTorch file, found none"),
    ],
)
def test_another_file_than_the_published_one_is_refused(
    tmp_path, monkeypatch, capsys, content, words
):
    file, out = tmp_path / "published.pth", tmp_path / "inception.safetensors"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.setattr(sys, "argv", ["convert", f"--torch={file}", f"--out={out}"])
    with pytest.raises(SystemExit, match="2"):
        convert_inception.main()
    assert re.search(words, capsys.readouterr().err)
    assert not out.exists()


def test_what_the_comparison_needs_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(
        ImportError, match="pip install torch torchvision pytorch-fid torch-fidelity"
    ):
        inception_agreement.imported()
