"""Writes the tables of README.md and docs/*.md from experiments/results/.

    python -m experiments.publish.documents            # rewrite the tables
    python -m experiments.publish.documents --check    # exit 1 if they differ

A marker pair is ``<!-- KIND: NAME[, NAME ...] -->`` ... ``<!-- end -->``: the kind of table, see
`tables.of_kind`, and files of experiments/results/ without their ending.
"""

import argparse
import re
import sys

from experiments import console
from experiments.publish import tables
from experiments.publish.tables import RESULTS, ROOT
from experiments.workdir import read_json, write_text

_NAMES = ("results", "statistics", "metrics", "scale-out", "pretrained")
DOCUMENTS = (
    ROOT / "README.md",
    *(ROOT / "docs" / f"{name}.md" for name in _NAMES),
    ROOT / "experiments" / "weights" / "fashion_mnist" / "README.md",
)
_MARKED = re.compile(
    r"(<!-- (?P<kind>[\w ]+): (?P<names>[\w, -]+) -->\n)(?:(?!<!-- ).)*?(<!-- end -->)", re.DOTALL
)


def rewritten(text: str) -> str:
    """Return a document with every marked table made anew."""

    def table(match: re.Match) -> str:
        names = match["names"].split(",")
        each = [read_json(RESULTS / f"{name.strip()}.json") for name in names]
        return f"{match[1]}{tables.of_kind(match['kind'], each)}{match[4]}"

    return _MARKED.sub(table, text)


def rewrite() -> None:
    """Make the tables of all documents anew."""
    for document in DOCUMENTS:
        write_text(document, rewritten(document.read_text("utf-8")))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 on a difference"
    )
    if not parser.parse_args().check:
        return rewrite()
    texts = {document.name: document.read_text("utf-8") for document in DOCUMENTS}
    stale = [name for name, text in texts.items() if rewritten(text) != text]
    if stale:
        sys.exit(
            f"{', '.join(stale)}: expected the tables of experiments/results; "
            "run -m experiments.publish.documents"
        )


if __name__ == "__main__":
    console.command(main)
