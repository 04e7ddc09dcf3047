"""What follows from the rows of results, in words made from their numbers.

A difference counts beyond two standard errors: those of paired test seeds and of the choice of real
examples taken together, where they are known.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lgd.report.definitions import GIVEN, HAND_MADE, LEARNED, UNGUIDED, kind_of, metric

Row = Mapping[str, Any]


class Conclusion(NamedTuple):
    """A verdict in one or two words, the sentence that matters most, and further ones."""

    verdict: str
    lead: str
    sentences: tuple[str, ...] = ()


class _Gap(NamedTuple):
    """A row less another; error: two standard errors, NaN where they are not known."""

    mean: float
    error: float

    @property
    def decides(self) -> bool:
        return abs(self.mean) > self.error  # never where the error is not known

    def __str__(self) -> str:
        if math.isnan(self.error):
            return f"a difference of {abs(self.mean):.4g}, whose error is not known"
        side, error = "beyond" if self.decides else "within", f"{self.error:.2g}"
        return f"a difference of {abs(self.mean):.4g}, {side} two standard errors ({error})"


def conclude(
    rows: Sequence[Row],
    *,
    metric: str,
    lower_is_better: bool = True,
    comparisons: Sequence[Mapping[str, Any]] = (),
    seconds: Mapping[str, float] | None = None,
    about: str = "",
) -> Conclusion:
    """What rows say by one metric: who wins, by how much, whether that is certain, at what cost.

    Args:
      rows: as in results.json; those without a finite mean of the metric are named and left out.
      metric: the name of the metric.
      lower_is_better: whether less of it is better.
      comparisons: paired differences, as in results.json. Of rows that have none they are taken
        from the values over seeds.
      seconds: of training, by method, and of tuning all hand-made schedules, by ``tune``.
      about: what the rows are of, which begins the lead.

    >>> from lgd import evaluation, report
    >>> def row(method, *values):
    ...     return {"method": method, "metrics": {"d": evaluation.summary(values)}}
    >>> report.conclude([row("unguided", 2.0, 2.1), row("constant", 1.0, 1.1)], metric="d").lead
    'constant has the lowest d: 1.050 ± 0.050, 48.8% below that of unguided.'
    """
    judge = _Judge(rows, metric, lower_is_better, comparisons, dict(seconds or {}))
    found = judge.conclusion()
    lead = f"{about}: {found.lead.replace('The best', 'the best', 1)}" if about else found.lead
    return found._replace(lead=lead, sentences=(*found.sentences, *judge.left_out()))


class _Judge:
    """Sentences about some rows by one metric."""

    def __init__(
        self,
        rows: Sequence[Row],
        name: str,
        is_lower: bool,
        comparisons: Sequence[Mapping[str, Any]],
        seconds: Mapping[str, float],
    ) -> None:
        self._name, self._title, self._lower = name, metric(name).title, is_lower
        self._comparisons, self._seconds, self._all = comparisons, seconds, rows
        finite = [row for row in rows if math.isfinite(_mean(row, name))]
        self._rows = sorted(finite, key=lambda row: _mean(row, name) * (1 if is_lower else -1))

    def conclusion(self) -> Conclusion:
        """The verdict, its sentence, and further ones."""
        if not self._rows:
            return Conclusion("no result", f"No row has a finite {self._title}.")
        best = self._rows[0]
        if len(self._rows) == 1:
            lead = f"{best['method']} is the only row: {self._title} {self._value(best)}."
            return Conclusion("one row", lead, ("There is nothing to compare it with.",))
        ours = self._first(LEARNED, GIVEN)
        theirs, plain = self._first(HAND_MADE), self._first(UNGUIDED)
        if ours is None:
            return self._of_two(best, self._rows[1] if best is plain or plain is None else plain)
        nobody = best is plain and (theirs is None or self._gap(theirs, best, self._name).mean != 0)
        opponent = plain if nobody else theirs or plain
        if opponent is None:
            return self._of_two(best, self._rows[1])
        found = self._duel(ours, opponent)
        more = [] if nobody or theirs is None or plain is None else self._against_plain(ours, plain)
        more += [] if theirs is None else self._elsewhere(ours, theirs)
        return found._replace(sentences=(*found.sentences, *more, *self._cost(ours, theirs, plain)))

    def left_out(self) -> tuple[str, ...]:
        """Which rows have no finite value of the metric."""
        names = [row["method"] for row in self._all if row not in self._rows]
        if not names or not self._rows:
            return ()
        return (f"Without a finite {self._title}, and left out here: {', '.join(names)}.",)

    def _of_two(self, best: Row, other: Row) -> Conclusion:
        gap = self._gap(best, other, self._name)
        return Conclusion(
            f"{best['method']} is best" if gap.decides else "a tie",
            f"{best['method']} has the {self._most} {self._title}: {self._value(best)}, "
            f"{self._apart(best, other)} that of {other['method']}.",
            (f"That is {gap}.", *self._cost(best, None, other)),
        )

    def _duel(self, ours: Row, theirs: Row) -> Conclusion:
        """The best row that was learned against the best one that was not."""
        gap = self._gap(ours, theirs, self._name)
        kind, count = kind_of(ours), sum(kind_of(row) == kind_of(ours) for row in self._rows)
        best_of = f", the best of {count} {kind} rows" if count > 1 else ""
        mine, other = (ours["method"], f"{best_of}," if best_of else ""), (theirs["method"], "")
        if kind_of(theirs) == HAND_MADE:
            other = (f"the best hand-made row, {theirs['method']}", ",")
        sure = (f"That is {gap}.",)
        if not gap.decides:
            lead = (
                f"{mine[0]}{best_of}{',' * bool(best_of)} and {other[0]}{other[1]} cannot be told "
                f"apart: {self._title} {self._value(ours)} and {self._value(theirs)}."
            )
            return Conclusion("undecided" if math.isnan(gap.error) else "a tie", lead, sure)
        wins = (gap.mean < 0.0) == self._lower
        first, second = (ours, theirs) if wins else (theirs, ours)
        subject = "".join(mine if wins else other)
        behind = other[0] if wins else f"{mine[0]}{best_of}"
        lead = (
            f"{subject} {'wins' if wins else 'is ahead'}: its {self._title} of "
            f"{self._value(first)} is {self._apart(first, second)} that of {behind} "
            f"({self._value(second)})."
        )
        return Conclusion(f"{kind if wins else kind_of(theirs)} wins", _capital(lead), sure)

    def _against_plain(self, ours: Row, plain: Row) -> list[str]:
        gap = self._gap(ours, plain, self._name)
        if gap.mean == 0.0:
            return [f"Unguided sampling is the same: {self._value(plain)}."]
        share = self._apart(ours, plain).rpartition(" ")[0]
        return [
            f"Against unguided sampling ({self._value(plain)}), {ours['method']} is {share} "
            f"{'lower' if gap.mean < 0 else 'higher'}: {gap}."
        ]

    def _elsewhere(self, ours: Row, theirs: Row | None) -> list[str]:
        """By the metrics that nothing was ranked by, where the difference is certain."""
        if theirs is None:
            return []
        sides: dict[str, list[str]] = {"better": [], "worse": [], "within the errors": []}
        for name in ours["metrics"]:
            known = metric(name)
            if name == self._name or known.lower_is_better is None:
                continue
            if not all(math.isfinite(_mean(row, name)) for row in (ours, theirs)):
                continue
            gap = self._gap(ours, theirs, name)
            good = "better" if (gap.mean < 0.0) == known.lower_is_better else "worse"
            sides[good if gap.decides else "within the errors"].append(known.title)
        said = [f"{side} in {', '.join(names)}" for side, names in sides.items() if names]
        text = "; ".join(said).replace("within the errors in", "within the errors:")
        return [f"By other metrics, against {theirs['method']}: {text}."] if said else []

    def _cost(self, ours: Row, theirs: Row | None, plain: Row | None) -> list[str]:
        others = [row for row in (theirs, plain) if row is not None and "nfe" in row]
        said = []
        if "nfe" in ours:
            against = ", ".join(f"{row['method']} {row['nfe']:g}" for row in others)
            said.append(
                f"A sample of {ours['method']} costs {ours['nfe']:g} network calls"
                + (f" ({against})." if against else ".")
            )
        if ours["method"] in self._seconds:
            tuned = self._seconds.get("tune")
            took = f"Learning it took {duration(self._seconds[ours['method']])}"
            tail = f"; tuning all hand-made schedules took {duration(tuned)}." if tuned else "."
            said.append(took + tail)
        return said

    def _first(self, *kinds: str) -> Row | None:
        """The best row of some kinds."""
        return next((row for row in self._rows if kind_of(row) in kinds), None)

    @property
    def _most(self) -> str:
        return "lowest" if self._lower else "highest"

    def _value(self, row: Row) -> str:
        """Mean and standard error."""
        return mean_and_error(row["metrics"][self._name])

    def _apart(self, row: Row, other: Row) -> str:
        """How far a row lies below or above another."""
        ours, theirs = _mean(row, self._name), _mean(other, self._name)
        side = "below" if ours < theirs else "above"
        if ours < 0.0 or theirs <= 0.0:  # where a share means nothing
            return f"{abs(ours - theirs):.4g} {side}"
        return f"{abs(ours - theirs) / theirs:.1%} {side}"

    def _gap(self, ours: Row, theirs: Row, name: str) -> _Gap:
        """Ours less theirs in a metric, paired by seed."""
        pair = (ours["method"], theirs["method"])
        for sign, names in ((1.0, pair), (-1.0, pair[::-1])):
            for each in self._comparisons:
                if (each["method"], each["against"], each["metric"]) == (*names, name):
                    errors = each["standard_error"], each.get("real_error") or 0.0
                    return _Gap(sign * each["mean"], 2.0 * math.hypot(*errors))
        one, two = (np.asarray(row["metrics"][name]["values"], float) for row in (ours, theirs))
        if len(one) != len(two) or len(one) < 2:
            return _Gap(_mean(ours, name) - _mean(theirs, name), math.nan)
        gaps = one - two
        return _Gap(float(gaps.mean()), 2.0 * float(gaps.std(ddof=1)) / len(gaps) ** 0.5)


def mean_and_error(summary: Mapping[str, Any]) -> str:
    """Mean and standard error of values over seeds, to the digits that the error allows."""
    mean, error = summary["mean"], standard_error(summary)
    if mean is None or not math.isfinite(mean):
        return "not finite"
    digits = 4 if not math.isfinite(error) or error <= 0 else 1 - math.floor(math.log10(error))
    digits = min(max(digits, 0), 6)
    return f"{mean:.{digits}f}" + (f" ± {error:.{digits}f}" if len(summary["values"]) > 1 else "")


def standard_error(summary: Mapping[str, Any]) -> float:
    """Of a mean over seeds; NaN for a single one."""
    count = len(summary["values"])
    return summary["std"] / count**0.5 if count > 1 and summary["std"] is not None else math.nan


def duration(seconds: float) -> str:
    """Seconds in words: 42 seconds, 3.5 minutes, 1.2 hours."""
    if seconds < 100.0:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.1f} minutes" if seconds < 6000.0 else f"{seconds / 3600:.1f} hours"


def _mean(row: Row, name: str) -> float:
    value = row["metrics"].get(name, {}).get("mean")
    return math.nan if value is None else float(value)


def _capital(text: str) -> str:
    """A sentence that begins with "the" with its capital; names stay as they are."""
    return text.replace("the ", "The ", 1) if text.startswith("the ") else text
