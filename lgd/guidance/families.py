"""The one table of hand-made families.

`FAMILIES` says of every family what its values may hold, over what grid they are tuned, and how it
is drawn: whatever tunes, reads, ranks or plots schedules goes through it, so that a new family is a
function in a file and a row here.
"""

import dataclasses
import inspect
import itertools
import math
from collections.abc import Callable, Mapping

from lgd.guidance.beta import beta_density
from lgd.guidance.c2fg import exponential
from lgd.guidance.edm import sigma_interval
from lgd.guidance.fitted import fitted_cfg
from lgd.guidance.hand_made import (
    HandMade,
    clamp_cosine,
    clamp_linear,
    constant,
    constant_directions,
    cosine,
    limited_interval,
    limited_interval_per_class,
    linear,
    logsnr_interval,
    power_cosine,
)
from lgd.guidance.plus_plus import cfg_plus_plus
from lgd.guidance.stagewise import stagewise_triangle
from lgd.machinery.words import shown

LIMIT = 1000.0  # largest weight of either sign: beyond it float32 losses overflow


@dataclasses.dataclass(frozen=True, kw_only=True)
class Field:
    """One value of a family.

    low, high: what it may hold. grid: values that tuning starts from, increasing; (): it is not
    tuned. growth: bounds within which the grid grows while the best value lies at its edge.
    per_stratum: a list with one value for each stratum.
    """

    low: float = -LIMIT
    high: float = LIMIT
    grid: tuple[float, ...] = ()
    growth: tuple[float, float] = (0.0, math.inf)
    per_stratum: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for empty ranges, or a grid that does not increase within its own."""
        for name, (low, high) in (("low, high", (self.low, self.high)), ("growth", self.growth)):
            if not low < high:
                raise ValueError(f"{name}: expected an increasing pair, got {low} and {high}")
        increases = all(a < b for a, b in itertools.pairwise(self.grid))
        if not increases or not all(self.low <= value <= self.high for value in self.grid):
            raise ValueError(
                f"grid: expected increasing values from {self.low} to {self.high}, got "
                f"{shown(self.grid)}"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """One row of `FAMILIES`.

    fields: the arguments of ``make`` that are numbers, in their order. apart: the family that has
    a schedule of this one for each stratum. colour, dashes: of its bars and curves. screened: a
    large grid, of which a first look with fewer samples chooses the finalists.
    """

    make: Callable[..., HandMade]
    fields: dict[str, Field]
    apart: str = ""
    colour: str = "#4f7285"
    dashes: tuple[float, ...] = (2.0, 2.0)
    screened: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for fields that are no arguments of ``make``."""
        unknown = [name for name in self.fields if name not in self._arguments]
        if unknown:
            raise ValueError(f"fields: expected arguments of {self.name}, got {unknown}")

    @property
    def _arguments(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.make).parameters

    @property
    def name(self) -> str:
        """Name of the family and of its rows."""
        return self.make.__name__

    @property
    def optional(self) -> frozenset[str]:
        """Names of the fields that have a default."""
        return frozenset(
            n for n in self.fields if self._arguments[n].default is not inspect.Parameter.empty
        )

    @property
    def takes_schedule(self) -> bool:
        """Whether ``make`` takes the noise schedule, as ``schedule=``."""
        return "schedule" in self._arguments

    @property
    def is_per_stratum(self) -> bool:
        """Whether its fields are lists with one value for each stratum."""
        return any(field.per_stratum for field in self.fields.values())


_WEIGHT = Field(
    grid=(0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 1.0, 1.4, 2.0)  # 0: no guidance
)
_INTERVAL = {  # wide enough for single strata too, which choose late, narrow and strong ones
    "w": Field(grid=(0.1, 0.2, 0.4, 0.7, 1.2, 2.4, 4.8)),
    "lo": Field(low=0.0, high=1.0, growth=(0.0, 1.0), grid=(0.0, 0.1, 0.2, 0.3, 0.45)),
    "hi": Field(
        low=0.0, high=1.0, growth=(0.0, 1.0), grid=(0.15, 0.2, 0.3, 0.4, 0.55, 0.7, 0.85, 1.0)
    ),
}
_SCALE = Field(
    grid=(0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9, 1.0, 1.2, 1.5, 2.0),
    growth=(0.5, math.inf),  # 0.5 is no guidance where the floor is 1
)
_FLOOR = Field()
_SHAPE = Field(low=1.0, growth=(1.0, math.inf), grid=(1.5, 2.0, 3.0))
_SHARE = Field(grid=(0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.7, 0.8, 0.9, 1.0))
_CHURN = Field(low=0.0, high=1.0)
_ROWS = (
    Family(make=constant, fields={"w": _WEIGHT}, colour="#4a5a70", dashes=(5.0, 1.5)),
    Family(
        make=limited_interval,
        fields=_INTERVAL,
        apart="limited_interval_per_class",
        screened=True,
        colour="#1b4f9c",
        dashes=(1.0, 1.0),
    ),
    Family(
        make=limited_interval_per_class,
        fields={name: dataclasses.replace(f, per_stratum=True) for name, f in _INTERVAL.items()},
        colour="#5a9fd4",
        dashes=(3.0, 1.0, 1.0, 1.0, 1.0, 1.0),
    ),
    Family(
        make=logsnr_interval,
        dashes=(1.0, 2.0),
        fields={
            "w": Field(grid=(0.1, 0.2, 0.4, 0.7, 1.2, 2.4, 4.8)),
            "lo": Field(grid=(-2.0, -1.0, 0.0, 1.0, 2.0), growth=(-20.0, 20.0)),
            "hi": Field(grid=(1.0, 2.0, 3.0, 4.0, 6.0, 20.0), growth=(-20.0, 20.0)),
        },
        screened=True,
    ),
    Family(
        make=sigma_interval,
        fields={
            "w": Field(grid=(0.1, 0.2, 0.4, 0.7, 1.2, 2.4, 4.8)),
            "lo": Field(low=0.0, grid=(0.0, 0.1, 0.2, 0.4, 0.8)),
            "hi": Field(low=0.0, grid=(0.2, 0.4, 0.8, 1.6, 5.0)),
        },
        screened=True,
        dashes=(1.0, 1.0, 4.0, 1.0),
    ),
    Family(make=linear, fields={"cfg_scale": _SCALE}, colour="#3d3d5c"),
    Family(
        make=clamp_linear,
        fields={"cfg_scale": _SCALE, "cfg_floor": _FLOOR},
        colour="#1a1a1a",
        dashes=(6.0, 1.5, 1.0, 1.5),
    ),
    Family(make=cosine, fields={"cfg_scale": _SCALE}, colour="#2a6f97"),
    Family(
        make=clamp_cosine,
        fields={"cfg_scale": _SCALE, "cfg_floor": _FLOOR},
        colour="#5a5f8f",
        dashes=(4.0, 1.0, 1.0, 1.0),
    ),
    Family(
        make=power_cosine,
        colour="#3f5e6f",
        dashes=(2.0, 1.0),
        fields={
            "cfg_scale": Field(grid=(1.0, 1.2, 1.5, 2.0, 3.0), growth=(0.0, math.inf)),
            "power": Field(low=1e-6, grid=(0.5, 1.0, 2.0, 4.0), growth=(0.0, math.inf)),
        },
    ),
    Family(
        make=exponential,
        fields={"cfg_scale": _SCALE, "rate": Field(low=-20.0, high=20.0, grid=(0.05, 0.2, 0.7))},
        dashes=(1.0, 3.0),
    ),
    Family(
        make=stagewise_triangle,
        fields={
            "w": _WEIGHT,
            "peak": Field(low=1e-3, high=0.999, growth=(0.1, 0.9), grid=(0.4, 0.5, 0.6)),
        },
        dashes=(3.0, 3.0),
    ),
    Family(
        make=beta_density,
        fields={"cfg_scale": _SCALE, "a": _SHAPE, "b": _SHAPE},
        screened=True,
        dashes=(5.0, 3.0),
    ),
    Family(
        make=cfg_plus_plus,
        fields={"lam": _SHARE, "churn": _CHURN},
        colour="#56707f",
        dashes=(6.0, 2.0, 2.0, 2.0),
    ),
    Family(
        make=fitted_cfg,
        fields={"w": dataclasses.replace(_WEIGHT, low=-1.0), "churn": _CHURN},
        colour="#566b8f",
        dashes=(8.0, 2.0),
    ),
    Family(
        make=constant_directions,
        fields={"w": _WEIGHT, "v": _WEIGHT},
        screened=True,
        colour="#666666",
    ),
)
FAMILIES: dict[str, Family] = {row.name: row for row in _ROWS}
