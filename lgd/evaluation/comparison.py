"""The result of a comparison: rows of metrics, and what to conclude of them."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lgd import schedules
from lgd.evaluation.measures import PRIMARY
from lgd.evaluation.seeds import paired_difference
from lgd.machinery import files, paths, storage
from lgd.machinery.words import cell

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lgd.report import Weights

GIVEN = "given"  # the family of rows that are not hand-made
UNGUIDED = "unguided"  # the first row
_VERDICTS = {  # by the sign of a difference beyond two standard errors
    -1: ("beats", "lower", "beyond"),
    0: ("ties with", "apart", "within"),
    1: ("loses to", "higher", "beyond"),
}


@dataclasses.dataclass(frozen=True)
class Curves:
    """Weights that are known before sampling.

    logsnr, t, sigma: at the start of every step, (k,). given, hand_made: omega by method, (g, k), a
    mean over the conditions of each stratum. Of several directions each has a name of its own.
    """

    logsnr: list[float]
    t: list[float]
    sigma: list[float]
    given: dict[str, list[list[float]]]
    hand_made: dict[str, list[list[float]]]


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Rows of metrics on test data, and paired differences between them.

    Args:
      rows: ``method``, ``family``, ``params``, ``metrics`` (each ``mean``, ``std`` and ``values``
        over seeds), ``num_samples``, ``num_steps``, ``nfe``, ``validation`` and ``omega``. The
        first is unguided, then come tuned hand-made schedules, then what was given.
      comparisons: of every row that was given against the unguided and the best hand-made one,
        ``mean`` of the difference, its ``standard_error`` over seeds, and ``real_error``, its
        standard deviation over resamples of the real examples, null where there are none.
      curves: weights of all rows that have them.
    """

    rows: tuple[dict[str, Any], ...]
    comparisons: tuple[dict[str, Any], ...]
    curves: Curves

    def __str__(self) -> str:
        return f"{self.summary()}\n\n{self.table()}"

    def __repr__(self) -> str:
        return f"<Comparison of {', '.join(row['method'] for row in self.rows)}>"

    def summary(self) -> str:
        """Sentences of conclusion: which row wins, by how much, and whether that is certain.

        A difference counts beyond two standard errors, those of seeds and of the choice of real
        examples taken together.
        """
        best = min(self.rows, key=_primary)
        lines = [f"The least energy distance has {best['method']}, {_primary(best):.4g}."]
        pairs = [pair for pair in self.comparisons if pair["metric"] == PRIMARY]
        return "\n".join(lines + [_sentence(pair) for pair in pairs])

    def table(self) -> str:
        """The rows in Markdown: means and standard errors over seeds, the least distance bold."""
        names = [*self.rows[0]["metrics"]]
        head = ["method", "tuned", *(name.replace("_", " ") for name in names), "NFE"]
        marks = ["---", "---", *["---:"] * (len(names) + 1)]
        least = min(map(_primary, self.rows))
        lines = ["| " + " | ".join(head) + " |", "|" + "|".join(marks) + "|"]
        for row in self.rows:
            cells = [_cell(row["metrics"][name]) for name in names]
            if _primary(row) == least:
                cells[names.index(PRIMARY)] = f"**{cells[names.index(PRIMARY)]}**"
            shown = [cell(row["method"]), _params(row["params"]), *cells, f"{row['nfe']:g}"]
            lines.append("| " + " | ".join(shown) + " |")
        return "\n".join(lines)

    def figure(self) -> "Figure":
        """Omega over logsnr of what was given, hand-made schedules dashed.

        Raises ValueError where no weights of what was given are known before sampling.
        """
        from lgd import plots  # matplotlib takes a while

        given, hand_made = self.curves.given, self.curves.hand_made
        if not given:
            raise ValueError("expected guidance whose weights are known before sampling, got none")
        count = len(next(iter(given.values())))
        return plots.omega_curves(
            given,
            {name: np.mean(omega, axis=0) for name, omega in hand_made.items()},
            logsnr=self.curves.logsnr,
            class_names=[str(k) for k in range(count)] if count > 1 else ["all"],
        )

    def html(
        self,
        path: str | Path,
        *,
        class_names: Sequence[str] | None = None,
        files: Mapping[str, str] | None = None,
    ) -> None:
        """Write a report for a browser: conclusion, table, weights and trade-offs in one file.

        Args:
          path: the file.
          class_names: names of the strata, in order; None: their numbers.
          files: where `lgd.save` put what was given, by method; the page says how to use them.

        Raises:
          ValueError: for names that are not one for each stratum, or files of other methods.
          OSError: where the disk does not take it.

        >>> import json, lgd
        >>> row = {"method": "unguided", "family": "unguided", "params": {}, "nfe": 25.0}
        >>> row["metrics"] = {"energy_distance": {"mean": 1.0, "std": 0.1, "values": [0.9, 1.1]}}
        >>> curves = lgd.evaluation.Curves([], [], [], {}, {})
        >>> lgd.evaluation.Comparison((row,), (), curves).html("comparison.html")
        """
        from lgd import report  # matplotlib takes a while

        path = paths.local(path)
        methods = [row["method"] for row in self.rows]
        if unknown := [name for name in files or {} if name not in methods]:
            raise ValueError(f"files: expected some of {methods}, got {unknown}")
        given = [row["method"] for row in self.rows if row["family"] == GIVEN]
        page = report.Page(
            title=f"Comparison of {', '.join(given or methods)}",
            about=self._about,
            rows=self.rows,
            primary_metric=PRIMARY,
            comparisons=self.comparisons,
            weights=self._weights(class_names),
            files=dict(files or {}),
        )
        report.write(page, path)

    @property
    def _about(self) -> str:
        """How many samples, seeds and steps stand behind the numbers."""
        row = self.rows[0]
        seeds = len(row["metrics"][PRIMARY]["values"])
        parts = [f"{row['num_samples']} samples a run"] if "num_samples" in row else []
        parts += [f"{seeds} test seeds"]
        parts += [f"{row['num_steps']} steps"] if "num_steps" in row else []
        return f"{', '.join(parts)}. Hand-made rows were tuned on other real examples than these."

    def _weights(self, class_names: Sequence[str] | None) -> "Weights | None":
        from lgd import report

        omega = self.curves.hand_made | self.curves.given
        count = len(next(iter(omega.values()))) if omega else 0
        if class_names is not None and len(class_names) != (count or len(class_names)):
            raise ValueError(f"class_names: expected {count} names, got {len(class_names)}")
        if not omega:
            return None
        numbers = [str(k) for k in range(count)] if count > 1 else ["all"]
        logsnr = np.asarray(self.curves.logsnr, np.float64)
        inside = np.abs(logsnr) < 0.99 * schedules.LOGSNR_LIMIT
        axes: dict[str, Any] = {
            "t": self.curves.t,
            "sigma": self.curves.sigma,
            "step": np.arange(1.0, len(logsnr) + 1.0),
            "logsnr": np.where(inside, logsnr, np.nan),
        }
        names = numbers if class_names is None else list(class_names)
        return report.Weights(axes=axes, conditions=names, omega=omega)

    def save(self, path: str | Path) -> None:
        """Write rows, comparisons and curves as JSON."""
        file = files.output(path)
        text = json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False)
        storage.write(file, f"{text}\n".encode())


def comparisons_of(
    rows: Sequence[Mapping[str, Any]], resampled: Mapping[str, Mapping[str, np.ndarray]]
) -> tuple[dict[str, Any], ...]:
    """Every given row against the unguided one and the best hand-made one, paired by seed.

    Args:
      rows: the first is unguided.
      resampled: by method and metric, means over seeds on each resample of the real examples.
    """
    opponents = [row for row in rows[1:] if row["family"] != GIVEN]
    others = [rows[0], *([min(opponents, key=_primary)] if opponents else [])]
    pairs = [(row, other) for row in rows if row["family"] == GIVEN for other in others]
    return tuple(each for row, other in pairs for each in differences(row, other, resampled))


def differences(
    row: Mapping[str, Any],
    other: Mapping[str, Any],
    resampled: Mapping[str, Mapping[str, np.ndarray]],
) -> list[dict[str, Any]]:
    """A row less another in every metric that both have, paired by seed; see `Comparison`.

    Args:
      row: its ``method``, and ``metrics`` with their ``values`` over seeds.
      other: the same of the row to compare with.
      resampled: by method and metric, means over seeds on each resample of the real examples.
    """
    ours, theirs = resampled[row["method"]], resampled[other["method"]]

    def real_error(metric: str) -> float | None:
        return float(np.std(ours[metric] - theirs[metric], ddof=1)) if metric in ours else None

    return [
        {
            "method": row["method"],
            "against": other["method"],
            "metric": metric,
            **paired_difference(
                row["metrics"][metric]["values"], other["metrics"][metric]["values"]
            ),
            "real_error": real_error(metric),
        }
        for metric in row["metrics"]
        if metric in other["metrics"]
    ]


def _primary(row: Mapping[str, Any]) -> float:
    return row["metrics"][PRIMARY]["mean"]


def _sentence(pair: Mapping[str, Any]) -> str:
    error = 2.0 * math.hypot(pair["standard_error"], pair["real_error"] or 0.0)
    gap, other = abs(pair["mean"]), pair["against"]
    sign = int(np.sign(pair["mean"])) if gap > error else 0
    verb, place, side = _VERDICTS[sign]
    if other != UNGUIDED:
        other += ", the best tuned schedule"
    return (
        f"{pair['method']} {verb} {other}: energy distance {gap:.4g} {place}, "
        f"{side} two standard errors ({error:.2g})."
    )


def _cell(summary: Mapping[str, Any]) -> str:
    error = summary["std"] / len(summary["values"]) ** 0.5
    return f"{summary['mean']:.4f} ± {error:.4f}"


def _params(params: Mapping[str, Any]) -> str:
    if any(isinstance(value, list) for value in params.values()):
        return "one for each label"
    return ", ".join(f"{cell(name)} {value:g}" for name, value in params.items())
