"""Writes the tables of README.md and docs/*.md from experiments/results/.

    python -m experiments.publish.documents            # rewrite the tables
    python -m experiments.publish.documents --check    # exit 1 if they differ

A marker pair is ``<!-- KIND: NAME[, NAME ...] -->`` ... ``<!-- end -->``: the kind of table, and
files of experiments/results/ without their ending.
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping

from experiments.benchmarks.checks import cost, inception_agreement, skipping
from experiments.benchmarks.device import accelerator_report
from experiments.benchmarks.gram import agreement, rank
from experiments.publish import statistics_tables, tables
from experiments.publish.tables import RESULTS, ROOT
from experiments.studies import ablations, floor, levels, transfer
from experiments.workdir import read_json, write_text

DOCUMENTS = (
    ROOT / "README.md",
    ROOT / "docs" / "results.md",
    ROOT / "docs" / "statistics.md",
    ROOT / "docs" / "metrics.md",
    ROOT / "docs" / "scale-out.md",
    ROOT / "experiments" / "weights" / "fashion_mnist" / "README.md",
)

_KINDS: dict[str, Callable[..., str]] = {
    "table": lambda results: tables.markdown(results) + tables.provenance(results),
    "summary": lambda results: tables.summary(results) + tables.provenance(results),
    "comparisons": lambda results: tables.comparisons(results),
    "classes": lambda results: tables.reward_classes(results),
    "levels": lambda *each: levels.table(each),
    "transfer": lambda results: transfer.table(results["entries"]) + tables.provenance(results),
    "ablations": lambda results: ablations.table(results) + tables.provenance(results),
    "floor": lambda results: floor.table(results) + tables.provenance(results),
    "accelerator": lambda results: accelerator_report.table(results) + tables.provenance(results),
    "planned memory": lambda results: (
        accelerator_report.planned_table(results) + tables.provenance(results)
    ),
    "cost": lambda results: cost.table(results) + tables.provenance(results),
    "skipping": lambda results: skipping.table(results) + tables.provenance(results),
    "gram agreement": lambda results: agreement.table(results) + tables.provenance(results),
    "gram cost": lambda results: statistics_tables.cost(results) + tables.provenance(results),
    "gram reached": lambda results: statistics_tables.reached(results),
    "gram sweep": lambda results: statistics_tables.sweep(results) + tables.provenance(results),
    "gram examples": lambda results: (
        statistics_tables.examples(results) + tables.provenance(results)
    ),
    "gram quality": lambda results: statistics_tables.quality(results) + tables.provenance(results),
    "gram warm": lambda results: statistics_tables.warm(results) + tables.provenance(results),
    "inception agreement": lambda results: (
        inception_agreement.table(results) + tables.provenance(results)
    ),
    "gram rank": lambda results: rank.table(results) + tables.provenance(results),
}
_MARKED = re.compile(
    rf"(<!-- (?P<kind>{'|'.join(_KINDS)}): (?P<names>[\w, -]+) -->\n).*?(<!-- end -->)", re.DOTALL
)


def rewritten(text: str) -> str:
    """A document with every marked table made anew."""

    def table(match: re.Match) -> str:
        each: list[Mapping] = [
            read_json(RESULTS / f"{name.strip()}.json") for name in match["names"].split(",")
        ]
        return f"{match[1]}{_KINDS[match['kind']](*each)}{match[4]}"

    return _MARKED.sub(table, text)


def rewrite() -> None:
    """All documents."""
    for document in DOCUMENTS:
        write_text(document, rewritten(document.read_text()))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 on a difference"
    )
    if not parser.parse_args().check:
        return rewrite()
    stale = [
        document.name for document in DOCUMENTS if rewritten(old := document.read_text()) != old
    ]
    if stale:
        sys.exit(
            f"{', '.join(stale)}: expected the tables of experiments/results; "
            "run -m experiments.publish.documents"
        )


if __name__ == "__main__":
    main()
