"""Settings of a comparison."""

import dataclasses
from collections.abc import Sequence

from jax.sharding import Mesh

from lgd.evaluation.tuning import Axes
from lgd.guidance import FAMILIES
from lgd.machinery.arguments import (
    finite,
    flag,
    instance,
    named,
    one_of,
    positive_int,
    whole,
    wrong,
)
from lgd.sampling.walk import checked_solver, checked_times
from lgd.types import Solver


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompareSettings:
    """How guidance is compared.

    Args:
      num_samples: samples of a run, of all strata together.
      num_steps: uniform steps of the sampler, where times is None.
      times: grid of the sampler, (num_steps + 1,), decreasing.
      solver: see `sampling.sample`.
      churn: see `sampling.sample`.
      validation_seeds: runs that score a candidate in full.
      test_seeds: runs that measure a row, at least 2.
      families: hand-made families to tune, rows of `guidance.FAMILIES`; None: `compare.OPPONENTS`,
        of which the one with an interval for each label takes part where conditions are labels.
      axes: values to try instead of those of a family, by family and field.
      finalists: points of a large grid that are run again in full.
      screening: samples of a first look at a large grid; None: a quarter of num_samples.
      num_real: most real examples of either half.
      mesh: devices that share the samples; None: wherever params lie.
      batch: most samples drawn at once; 0: all of a run.
      progress: show a bar.
      check: whether to look first, by a few calls of the model, for what `lgd.check` finds. What
        cannot work is an error, what is only suspicious a warning.
    """

    num_samples: int = 1000
    num_steps: int = 25
    times: Sequence[float] | None = None
    solver: str | Solver = "ddim"
    churn: float = 0.0
    validation_seeds: int = 1
    test_seeds: int = 3
    families: str | Sequence[str] | None = None
    axes: Axes = dataclasses.field(default_factory=dict)
    finalists: int = 8
    screening: int | None = None
    num_real: int = 5000
    mesh: Mesh | None = None
    batch: int = 0
    progress: bool = True
    check: bool = True

    def __post_init__(self) -> None:
        for name in ("num_samples", "num_steps", "validation_seeds", "finalists", "num_real"):
            positive_int(name, getattr(self, name))
        whole("test_seeds", self.test_seeds, low=2)
        whole("batch", self.batch, low=0)
        if self.screening is not None:
            positive_int("screening", self.screening)
        finite("churn", self.churn, low=0, high=1)
        checked_solver(self.solver, self.churn)
        if self.times is not None:
            checked_times(self.times)
        if self.mesh is not None:
            instance("mesh", self.mesh, Mesh, "lgd.machinery.parallel.make_mesh(1)")
        flag("progress", self.progress)
        flag("check", self.check)
        for family in self.family_names or ():
            one_of("families", family, FAMILIES)
        for family, values in named("axes", self.axes, "values of fields by family").items():
            one_of("axes", family, FAMILIES)
            for field in named(f"axes[{family!r}]", values, "values by field"):
                one_of(f"axes[{family!r}]", field, FAMILIES[family].fields)

    @property
    def family_names(self) -> tuple[str, ...] | None:
        """The families, of which one may be given by its name alone."""
        if self.families is None or isinstance(self.families, str):
            return None if self.families is None else (self.families,)
        try:
            return tuple(self.families)
        except TypeError:
            raise wrong("families", "names of hand-made families", self.families) from None

    def per_stratum(self, num_strata: int) -> tuple[int, int]:
        """Samples of every stratum in a full run, and in a first look.

        Raises ValueError for fewer than 2 of every stratum.
        """
        for name, count in (("num_samples", self.num_samples), ("screening", self.screening)):
            if count is not None and count < 2 * num_strata:
                expected = f">= 2 of each of {num_strata} strata, so >= {2 * num_strata}"
                raise ValueError(f"{name}: expected {expected}, got {count}")
        first_look = self.num_samples // 4 if self.screening is None else self.screening
        full = max(2, self.num_samples // num_strata)
        return full, min(full, max(2, first_look // num_strata))
