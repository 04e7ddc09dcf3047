"""Learned guidance for diffusion models, in JAX.

Everything is there after ``import lgd`` and loaded when it is first used. The rooms follow the
method: `schedules`, `diffusion`, `guidance`, `omega`, `sampling`, `discrepancy`, `objectives`,
`gram`, `direct`, `rewards`, `training`, `learn`, `evaluation`, `metrics`, `plots`, `report`;
models in `denoisers`, examples in `data`, devices and processes in `machinery`.
"""

import importlib
from typing import Any

__version__ = "0.2.0"

_ROOMS = (
    "checks",
    "conditions",
    "data",
    "denoisers",
    "diffusion",
    "direct",
    "discrepancy",
    "encoders",
    "evaluation",
    "exchange",
    "gram",
    "guidance",
    "learn",
    "machinery",
    "metrics",
    "objectives",
    "omega",
    "plots",
    "report",
    "rewards",
    "sampling",
    "schedules",
    "starts",
    "training",
    "types",
)
_NAMES = {
    "Guidance": "lgd.omega",
    "check": "lgd.checks",
    "compare": "lgd.evaluation",
    "learn_guidance": "lgd.learn",
    "load": "lgd.exchange.files",
    "path_guidance": "lgd.direct",
    "sample": "lgd.sampling",
    "save": "lgd.exchange.files",
    "search_guidance": "lgd.direct",
}

__all__ = [*_ROOMS, *_NAMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"lgd.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'lgd' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
