"""Settings of a comparison."""

import dataclasses
from collections.abc import Sequence

from jax.sharding import Mesh

from lgd.evaluation.tuning import Axes
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
    """

    num_samples: int = 1000
    num_steps: int = 25
    times: Sequence[float] | None = None
    solver: str | Solver = "ddim"
    churn: float = 0.0
    validation_seeds: int = 1
    test_seeds: int = 3
    families: Sequence[str] | None = None
    axes: Axes = dataclasses.field(default_factory=dict)
    finalists: int = 8
    screening: int | None = None
    num_real: int = 5000
    mesh: Mesh | None = None
    batch: int = 0
    progress: bool = True

    def __post_init__(self) -> None:
        if self.test_seeds < 2:
            raise ValueError(f"expected test_seeds >= 2, got {self.test_seeds}")
        for name in ("num_samples", "num_steps", "validation_seeds", "finalists", "num_real"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} >= 1, got {getattr(self, name)}")

    def per_stratum(self, num_strata: int) -> tuple[int, int]:
        """Samples of every stratum in a full run, and in a first look."""
        first_look = self.num_samples // 4 if self.screening is None else self.screening
        full = max(2, self.num_samples // num_strata)
        return full, min(full, max(2, first_look // num_strata))
