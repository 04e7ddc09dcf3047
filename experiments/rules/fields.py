"""The rule for every field of configs/default.py."""

import itertools
import re
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from experiments.methods import METHODS, WALKS
from experiments.rules.data import READ_FROM_FILES
from lgd.machinery import paths


class Rule(NamedTuple):
    """The values that a field may have: in words, and as a predicate."""

    expected: str
    holds: Callable[[Any], bool]


_PATH = Rule(
    "a path in printable characters, of this machine",
    lambda text: text.isprintable() and paths.is_local(text),
)


def integer(least: int) -> Rule:
    """Return the rule of an integer from ``least``, below 2^31: devices hold it as int32."""
    return Rule(f"an integer >= {least} (and < 2^31)", lambda n: least <= n < 2**31)


def number(interval: str) -> Rule:
    """Return the rule of a number in an interval like "(0, 2]".

    It must be inside in float32 too: 1 - 1e-9 is not in [0, 1).
    """
    return Rule(f"a number in {interval}", lambda x: _inside(x, interval))


def one_of(*names: str) -> Rule:
    """Return the rule of one name of several."""
    return Rule(f"one of {', '.join(names)}", lambda name: name in names)


def different(*names: str) -> Rule:
    """Return the rule of a tuple, possibly empty, of different names out of several."""
    return Rule(
        f"a tuple of different names of {', '.join(names)}",
        lambda values: set(values) <= set(names) and len(set(values)) == len(values),
    )


def distinct_integers(least: int) -> Rule:
    """Return the rule of a tuple, possibly empty, of different integers from ``least``."""
    return Rule(
        f"a tuple of different integers >= {least}",
        lambda values: len(set(values)) == len(values) and all(least <= n < 2**31 for n in values),
    )


def integers(least: int) -> Rule:
    """Return the rule of a tuple of at least one integer, all from ``least``."""
    return Rule(
        f"a tuple of integers >= {least}",
        lambda values: len(values) > 0 and all(least <= n < 2**31 for n in values),
    )


def increasing(interval: str, *, least: int = 1, first: float | None = None) -> Rule:
    """Return the rule of a strictly increasing tuple of numbers in an interval.

    Args:
      interval: an interval like "(0, 2]".
      least: least number of numbers.
      first: value of the first number; None: any.
    """
    start = "" if first is None else f", the first of them {first}"
    return Rule(
        f"a tuple of {least} or more increasing numbers in {interval}{start}",
        lambda grid: (
            len(grid) >= least
            and all(_inside(x, interval) for x in grid)
            and all(_float32(a) < _float32(b) for a, b in itertools.pairwise(grid))
            and (first is None or grid[0] == first)
        ),
    )


def numbers(interval: str) -> Rule:
    """Return the rule of a tuple of at least one number in an interval."""
    return Rule(
        f"a tuple of numbers in {interval}",
        lambda values: len(values) > 0 and all(_inside(x, interval) for x in values),
    )


def _inside(x: float, interval: str) -> bool:
    low, high = (float(end) for end in interval[1:-1].split(","))

    def holds(value: float) -> bool:
        above = low < value or (value == low and interval[0] == "[")
        return above and (value < high or (value == high and interval[-1] == "]"))

    return holds(x) and holds(_float32(x))


def _float32(x: float) -> float:
    return float(struct.unpack("f", struct.pack("f", x))[0])


POSITIVE = number("(0, 1e9]")
SHARE = number("[0, 1]")
DECAY = number("[0, 1)")
FLAG = Rule("true or false", lambda flag: True)

FIELDS: dict[str, Rule] = {
    "seed": integer(0),
    "fake_data": FLAG,
    "data.name": one_of("digits", "mixture", *READ_FROM_FILES),
    "data.path": _PATH,
    "data.size": integer(0),
    "data.attributes": Rule(
        "a tuple of at most 8 different names",
        lambda names: len(set(names)) == len(names) <= 8 and all(map(str.isidentifier, names)),
    ),
    "data.num_train": integer(16),
    "data.num_validation": integer(16),
    "data.num_test": integer(16),
    "schedule": one_of("rectified_flow", "cosine", "linear_vp", "edm"),
    "denoiser.level": one_of("under", "middle", "well", "exact", "pretrained"),
    "denoiser.pipeline": _PATH,
    "denoiser.prompt": Rule(
        "a text with {} in the place of a name", lambda text: text.isprintable() and "{}" in text
    ),
    "denoiser.class_ids": Rule(
        "different labels from 0 with commas between, or no text",
        lambda text: not text or re.fullmatch(r"\d{1,9}(,\d{1,9})*", text) is not None,
    ),
    "denoiser.num_steps.under": integer(1),
    "denoiser.num_steps.middle": integer(1),
    "denoiser.num_steps.well": integer(1),
    "denoiser.weaker_num_steps": integer(0),
    "denoiser.kind": one_of("x0", "eps", "v", "velocity", "score"),
    "denoiser.network": one_of("mlp", "unet", "dit"),
    "denoiser.width": integer(1),
    "denoiser.depth": integer(1),
    "denoiser.heads": integer(1),
    "denoiser.mlp.gain": FLAG,
    "denoiser.dit.patch_size": integer(1),
    "denoiser.unet.channels": integer(1),
    "denoiser.unet.multipliers": integers(1),
    "denoiser.unet.blocks": integer(1),
    "denoiser.unet.attention": distinct_integers(1),
    "denoiser.dtype": one_of("float32", "bfloat16"),
    "denoiser.remat": one_of("none", "activations", "blocks"),
    "denoiser.batch_size": integer(1),
    "denoiser.learning_rate": POSITIVE,
    "denoiser.ema_decay": DECAY,
    "denoiser.label_dropout": number("[0, 1)"),
    "denoiser.times": one_of("uniform", "logit_normal"),
    "denoiser.times_location": number("[-10, 10]"),
    "denoiser.times_scale": number("(0, 10]"),
    "denoiser.flip": FLAG,
    "denoiser.shift": integer(0),
    "sampling.num_steps": integer(3),
    "sampling.grid": one_of("uniform", "logsnr", "edm", "scheduler"),
    "sampling.solver": one_of("ddim", "heun", "heun_edm", "dpmpp_2m"),
    "sampling.churn": SHARE,
    "guidance.methods": different(*METHODS),
    "guidance.start": one_of("best", "init", *WALKS),
    "guidance.num_snapshots": integer(1),
    "guidance.omega.width": integer(1),
    "guidance.omega.depth": integer(1),
    "guidance.omega.output": one_of("projected", "relu", "softplus"),
    "guidance.omega.init": POSITIVE,
    "guidance.omega.max": POSITIVE,
    "guidance.path.num_particles": integer(2),
    "guidance.path.num_sweeps": integer(1),
    "guidance.one_step.num_steps": integer(1),
    "guidance.one_step.batch_size": integer(1),
    "guidance.one_step.learning_rate": POSITIVE,
    "guidance.one_step.ema_decay": DECAY,
    "guidance.one_step.beta": number("(0, 2]"),
    "guidance.one_step.lam": SHARE,
    "guidance.one_step.num_particles": integer(1),
    "guidance.one_step.group_size": integer(2),
    "guidance.one_step.churn": SHARE,
    "guidance.one_step.coupling": one_of("independent", "shared"),
    "guidance.one_step.s_min": number("[0, 1)"),
    "guidance.one_step.delta": number("(0, 1)"),
    "guidance.one_step.zeta": number("[0, 1)"),
    "guidance.one_step.model": one_of("network", "table"),
    "guidance.trajectory.num_steps": integer(1),
    "guidance.trajectory.grid_scales": Rule(
        "a tuple of different numbers in [0.1, 10], the first of them 1.0",
        lambda scales: (
            scales[:1] == (1.0,)
            and len(set(scales)) == len(scales)
            and all(_inside(scale, "[0.1, 10]") for scale in scales)
        ),
    ),
    "guidance.trajectory.start_time": number("[0.001, 1]"),
    "guidance.trajectory.num_particles": integer(1),
    "guidance.trajectory.num_targets": integer(1),
    "guidance.trajectory.marginal_weight": number("[0, 1e9]"),
    "guidance.trajectory.conditions_per_step": integer(1),
    "guidance.trajectory.learning_rate": POSITIVE,
    "guidance.trajectory.ema_decay": DECAY,
    "guidance.trajectory.beta": number("(0, 2]"),
    "guidance.trajectory.lam": SHARE,
    "guidance.trajectory.model": one_of("table", "network"),
    "statistics.num_examples": integer(0),
    "statistics.num_held_out": integer(1),
    "statistics.batch_size": integer(1),
    "statistics.shard_examples": integer(1),
    "reward.name": one_of("none", "linear", "tanh", "bump", "classifier"),
    "reward.weights": increasing("[0, 1e9]", least=2, first=0.0),
    "reward.direction": numbers("[-1e9, 1e9]"),
    "reward.centre": numbers("[-1e9, 1e9]"),
    "reward.scale": POSITIVE,
    "reward.one_step_num_steps": integer(1),
    "reward.trajectory_num_steps": integer(1),
    "reward.classifier_width": integer(1),
    "reward.max_tilt": POSITIVE,
    "reward.num_true_draws": integer(2),
    "evaluation.primary": one_of("energy_distance", "frechet_distance", "class_frechet_distance"),
    "evaluation.features": one_of("classifier", "inception", "efficientnet"),
    "evaluation.inception_path": _PATH,
    "evaluation.inception_sha256": Rule(
        "64 hexadecimal digits in lower case, or none",
        lambda text: re.fullmatch("([0-9a-f]{64})?", text) is not None,
    ),
    "evaluation.num_samples": integer(20),
    "evaluation.num_test_samples": Rule(
        "0, or an integer >= 20 (and < 2^31)", lambda n: n == 0 or 20 <= n < 2**31
    ),
    "evaluation.sample_batch": integer(0),
    "evaluation.num_screening": integer(20),
    "evaluation.num_finalists": integer(1),
    "evaluation.validation_seeds": integer(1),
    "evaluation.test_seeds": integer(2),  # a standard deviation needs two
    "evaluation.skip": FLAG,
    "evaluation.families": Rule(
        "a tuple of different names of families, constant among them",
        lambda names: (
            len(set(names)) == len(names)
            and "constant" in names
            and all(map(str.isidentifier, names))
        ),
    ),
    "evaluation.constant_weights": increasing("[0, 1e9]", least=3, first=0.0),
    "evaluation.interval_weights": increasing("(0, 1e9]"),
    "evaluation.interval_lower": increasing("[0, 1]"),
    "evaluation.interval_upper": increasing("[0, 1]"),
    "evaluation.clamp_linear_scales": increasing("(0, 1e9]"),
    "classifier.network": one_of("mlp", "conv", "lenet"),
    "classifier.num_steps": integer(1),
    "classifier.width": integer(1),
    "classifier.num_features": integer(1),
    "classifier.batch_size": integer(1),
    "classifier.learning_rate": POSITIVE,
    "features.network": one_of("mlp", "conv", "lenet"),
    "features.width": integer(1),
    "features.num_features": integer(1),
    "features.num_networks": integer(1),
    "features.seed_offset": integer(1),
    "training.save_every": integer(1),
    "training.log_every": integer(1),
    "training.loggers": different("tensorboard", "wandb"),
    "training.clip": number("[0, 1e9]"),
    "training.max_skipped": integer(1),
    "training.stall_seconds": number("[0.1, 1e9]"),
    "mesh.data": integer(0),
    "mesh.fsdp": integer(1),
}
