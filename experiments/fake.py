"""The effect of ``--config.fake_data=True``: the same run in a few steps, without data files.

Numbers of steps, examples and samples and grids of schedules are cut; networks, batches and devices
stay. Configs are cut when they are read, so that config.json shows the values; fields set on the
command line are kept.
"""

import re
from collections.abc import Mapping
from typing import Any

STEPS = 6  # of every training
_SHAPES = {"digits": (8, 8, 1), "mnist": (28, 28, 1), "fashion_mnist": (28, 28, 1)}
_NUM_CLASSES = {"mixture": 8, "imagenet_resized": 1000, "imagenet2012": 1000, "cifar100": 100}
_AT_MOST = {
    "denoiser.num_steps.under": STEPS,
    "denoiser.num_steps.middle": STEPS,
    "denoiser.num_steps.well": STEPS,
    "classifier.num_steps": STEPS,
    "sampling.num_steps": 4,
    "guidance.num_snapshots": 2,
    "guidance.one_step.num_steps": STEPS,
    "guidance.trajectory.num_steps": STEPS,
    "reward.one_step_num_steps": STEPS,
    "reward.trajectory_num_steps": STEPS,
    "reward.num_true_draws": 20,
    "evaluation.num_finalists": 1,
    "evaluation.validation_seeds": 1,
    "evaluation.test_seeds": 2,
}
_PER_CLASS = {  # examples or samples, exactly; distances need two
    "data.num_train": 4,
    "data.num_validation": 2,
    "data.num_test": 2,
    "evaluation.num_samples": 2,
    "evaluation.num_screening": 2,
    "evaluation.num_test_samples": 2,
}
_BATCHES = {  # of statistics.batch_size
    "statistics.num_examples": 4,
    "statistics.num_held_out": 4,
    "statistics.shard_examples": 2,
}
_PARTS = {  # of tuples
    "reward.weights": slice(0, 2),
    "evaluation.constant_weights": slice(0, 3),
    "evaluation.interval_weights": slice(0, 1),
    "evaluation.interval_lower": slice(0, 1),
    "evaluation.interval_upper": slice(-1, None),
    "evaluation.clamp_linear_scales": slice(0, 1),
}


def cut(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are cut, by dotted name; values of a wrong type are left out."""
    most, classes = dict(_AT_MOST), num_classes(values)
    exact = {field: max(20, count * classes) for field, count in _PER_CLASS.items()}
    batch = values.get("statistics.batch_size")
    if isinstance(batch, int):
        most |= {field: count * batch for field, count in _BATCHES.items()}
    least = {field: min(values[field], n) for field, n in most.items() if _is(int, values, field)}
    parts = {field: values[field][p] for field, p in _PARTS.items() if _is(tuple, values, field)}
    return least | parts | exact


def _is(kind: type, values: Mapping[str, Any], field: str) -> bool:
    return isinstance(values.get(field), kind)


def num_classes(values: Mapping[str, Any]) -> int:
    """Return the number of classes of a config's data set, guessed by its name; else 10."""
    attributes = values.get("data.attributes")
    if isinstance(attributes, tuple) and attributes:
        return int(2 ** len(attributes))
    names = [values.get("data.name"), *str(values.get("data.path")).split("/")]
    return next((_NUM_CLASSES[name] for name in names if name in _NUM_CLASSES), 10)


def shape(values: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return the shape (h, w, channels) of images of a config's data set.

    It is guessed by the names in data.path, data.size, or a part like "64x64" of the path; else it
    is (32, 32, 3).
    """
    name, path, size = (values[f"data.{field}"] for field in ("name", "path", "size"))
    for part in (name, *path.split("/")):
        if part in _SHAPES:
            return _SHAPES[part]
    square = re.search(r"(\d+)x\1(?!\d)", path)
    side = size or (int(square[1]) if square else 32)
    return side, side, 3
