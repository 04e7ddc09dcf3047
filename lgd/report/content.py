"""What a report is made of."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lgd.report.conclusion import Conclusion

AXES = ("t", "sigma", "step", "logsnr")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Weights:
    """Omega of several methods on the steps of one sampling grid.

    Args:
      axes: what omega can be drawn over, some of `AXES`, each (k,) at the start of every step, from
        noise to data; NaN where it is infinite.
      conditions: names of the g conditions.
      omega: by method, (g, k), or (r, g, k) of r training seeds; 0 is no guidance.

    Raises:
      ValueError: for other shapes or axes, or weights that are not finite.
    """

    axes: Mapping[str, ArrayLike]
    conditions: Sequence[str]
    omega: Mapping[str, ArrayLike]

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        unknown = [name for name in self.axes if name not in AXES]
        sizes = {np.shape(values) for values in self.axes.values()}
        if unknown or len(sizes) != 1 or len(next(iter(sizes))) != 1:
            raise ValueError(f"axes: expected some of {AXES}, all (k,), got {dict(self.axes)}")
        shape = (len(self.conditions), *next(iter(sizes)))
        for name, values in self.omega.items():
            array = np.asarray(values, np.float64)
            if array.ndim not in (2, 3) or array.shape[-2:] != shape or not len(array):
                raise ValueError(f"omega of {name}: expected (r, *{shape}), got {array.shape}")
            if not np.isfinite(array).all():
                raise ValueError(f"omega of {name}: expected finite weights, got some that are not")

    def of_seeds(self, name: str) -> np.ndarray:
        """Omega of a method, (r, g, k)."""
        array = np.asarray(self.omega[name], np.float64)
        return array if array.ndim == 3 else array[None]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """A picture of samples for every method, all from the same noise and laid out alike.

    Args:
      pictures: images (h, w, 3) in [0, 1] by method, of one shape.
      rows: names of the rows of each picture, from top to bottom; (): it has none.
      caption: what the pictures show, a sentence.
      smooth: whether a browser may smooth them when it enlarges them.
    """

    pictures: Mapping[str, np.ndarray]
    rows: Sequence[str] = ()
    caption: str = "Samples of every method from the same noise."
    smooth: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Page:
    """All that a report says. Whatever is empty is left out of it.

    Args:
      title: its heading.
      about: sentences below the heading: how many samples, seeds and steps, and where.
      rows: as in results.json: ``method``, perhaps ``family`` and ``params``, ``metrics`` (each
        ``mean``, ``std`` and ``values`` over test seeds), ``nfe`` and ``omega``.
      primary_metric: the metric that rows are ranked by.
      lower_is_better: whether less of it is better.
      comparisons: paired differences between rows, as in results.json.
      conclusions: what follows from the rows, see `conclusion.conclude`.
      seconds: of training, by method.
      weights: omega of the methods, in panels of their own by title.
      samples: pictures of samples.
      files: file name of the guidance that was learned, by method.
      place: where the paths of these files begin, a sentence.
      config: settings of the run.
      command: the command that makes it again.
      notes: further sentences, below the table.
    """

    title: str
    rows: Sequence[Mapping[str, Any]]
    primary_metric: str
    lower_is_better: bool = True
    about: str = ""
    comparisons: Sequence[Mapping[str, Any]] = ()
    conclusions: Sequence[Conclusion] = ()
    seconds: Mapping[str, float] = dataclasses.field(default_factory=dict)
    weights: Weights | None = None
    samples: Samples | None = None
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    place: str = ""
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    command: str = ""
    notes: Sequence[str] = ()
