"""What a config may hold: a line for every field of configs/default.py, then rules across fields.

A rule sees values of the default's type. It completes "field: expected ..., got ...".
"""

import itertools
import re
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from experiments import denoiser_rules

NUM_DIGITS = 1797  # images that scikit-learn ships
NUM_MNIST_TRAIN, NUM_MNIST_TEST = 60_000, 10_000  # images of MNIST and of Fashion-MNIST
# Numbers of one example, where all files agree on them.
SIZES = {"digits": 64, "mnist": 784, "fashion_mnist": 784, "mixture": 2}
READ_FROM_FILES = ("mnist", "fashion_mnist", "npz", "images", "tfds")
TRAJECTORIES = ("trajectory", "trajectory_features")  # methods that unroll; others take one step
CONVERT = (
    "python -m experiments.convert_inception --torch=pt_inception-2015-12-05-6726825d.pth "
    "--out=inception.safetensors (docs/metrics.md says where the weights are)"
)
MARGIN = 1e-6  # below this a range is empty in float32
SMALLEST_OF_LENET = 16  # pixels along a side: less is nothing after its second pooling


class Rule(NamedTuple):
    """What one field may hold, in words and as a test."""

    expected: str
    holds: Callable[[Any], bool]


class Across(NamedTuple):
    """A rule of several fields: takes their values, returns what is wrong with the first or None.

    Runs only when every one of these fields is right by itself.
    """

    fields: tuple[str, ...]
    wrong: Callable[..., str | None]


def integer(least: int) -> Rule:
    """Steps, sizes and seeds are int32 on the device."""
    return Rule(f"an integer >= {least} (and < 2^31)", lambda n: least <= n < 2**31)


def number(interval: str) -> Rule:
    """A number in an interval like "(0, 2]", in float32 too: 1 - 1e-9 is not in [0, 1)."""
    return Rule(f"a number in {interval}", lambda x: _inside(x, interval))


def one_of(*names: str) -> Rule:
    """One name of several."""
    return Rule(f"one of {', '.join(names)}", lambda name: name in names)


def different(*names: str) -> Rule:
    """A tuple of any of these names, none of them twice; may be empty."""
    return Rule(
        f"a tuple of different names of {', '.join(names)}",
        lambda chosen: set(chosen) <= set(names) and len(set(chosen)) == len(chosen),
    )


def distinct_integers(least: int) -> Rule:
    """A tuple of different integers; may be empty."""
    return Rule(
        f"a tuple of different integers >= {least}",
        lambda values: len(set(values)) == len(values) and all(least <= n < 2**31 for n in values),
    )


def integers(least: int) -> Rule:
    """A tuple of at least one integer."""
    return Rule(
        f"a tuple of integers >= {least}",
        lambda values: len(values) > 0 and all(least <= n < 2**31 for n in values),
    )


def increasing(interval: str, *, least: int = 1, first: float | None = None) -> Rule:
    """A strictly increasing tuple of at least so many numbers in an interval."""
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
    """A tuple of at least one number in an interval."""
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
    "data.path": Rule("a path in printable characters", str.isprintable),
    "data.size": integer(0),
    "data.attributes": Rule(
        "a tuple of at most 8 different names",
        lambda names: len(set(names)) == len(names) <= 8 and all(map(str.isidentifier, names)),
    ),
    "data.num_train": integer(16),
    "data.num_validation": integer(16),
    "data.num_test": integer(16),
    "schedule": one_of("rectified_flow", "cosine", "linear_vp", "edm"),
    "denoiser.level": one_of("under", "middle", "well", "exact"),
    "denoiser.num_steps.under": integer(1),
    "denoiser.num_steps.middle": integer(1),
    "denoiser.num_steps.well": integer(1),
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
    "denoiser.remat": FLAG,
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
    "sampling.grid": one_of("uniform", "logsnr", "edm"),
    "sampling.solver": one_of("ddim", "heun", "dpmpp_2m"),
    "sampling.churn": SHARE,
    "guidance.methods": different(
        "self_consistency",
        "l2",
        "conditional_marginal",
        "marginal",
        "guided_score_matching",
        *TRAJECTORIES,
    ),
    "guidance.start": one_of("best", "init"),
    "guidance.num_snapshots": integer(1),
    "guidance.omega.width": integer(1),
    "guidance.omega.depth": integer(1),
    "guidance.omega.output": one_of("projected", "relu", "softplus"),
    "guidance.omega.init": POSITIVE,
    "guidance.omega.max": POSITIVE,
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
    "guidance.trajectory.num_particles": integer(1),
    "guidance.trajectory.num_targets": integer(1),
    "guidance.trajectory.marginal_weight": number("[0, 1e9]"),
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
    "evaluation.features": one_of("classifier", "inception"),
    "evaluation.inception_path": Rule("a path in printable characters", str.isprintable),
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


def _s_range(s_min: float, delta: float, zeta: float) -> str | None:
    end = 1.0 - zeta - delta
    if s_min < end - MARGIN:
        return None
    return f"expected s_min < 1 - zeta - delta = {round(end, 6)} (else no s is left), got {s_min}"


def _some_upper_above(lower: Sequence[float], upper: Sequence[float]) -> str | None:
    stuck = [end for end in lower if end >= max(upper)]
    return (
        f"expected every end < {max(upper)}, the largest upper end, got {stuck}" if stuck else None
    )


def _some_lower_below(upper: Sequence[float], lower: Sequence[float]) -> str | None:
    stuck = [end for end in upper if end <= min(lower)]
    return f"expected every end > {min(lower)}, the least lower end, got {stuck}" if stuck else None


def _init_below_max(init: float, most: float) -> str | None:
    return None if init < most else f"expected init < guidance.omega.max = {most}, got {init}"


def _exact_is_mixture(level: str, data: str) -> str | None:
    if level != "exact" or data == "mixture":
        return None
    return f"expected under, middle or well for data {data} (exact: mixture only), got 'exact'"


def _churn_is_ddim(churn: float, solver: str) -> str | None:
    if churn == 0.0 or solver == "ddim":
        return None
    return f"expected 0.0 for solver {solver} (above 0: ddim only), got {churn}"


def _screening_at_most_samples(screening: int, samples: int) -> str | None:
    if screening <= samples:
        return None
    return f"expected at most evaluation.num_samples = {samples}, got {screening}"


def _size_of_data(size: int, data: str) -> str | None:
    if data == "images":
        return None if size else f"expected 1 or more for data {data}, got 0"
    return None if data == "tfds" or not size else f"expected 0 for data {data}, got {size}"


def _path_of_data(path: str, data: str, fake: bool) -> str | None:
    if data in READ_FROM_FILES:
        return (
            None if path or fake else f"expected a file or a folder for data {data}, got {path!r}"
        )
    return f"expected '' for data {data}, which reads no file, got {path!r}" if path else None


def _attributes_of(attributes: Sequence[str], data: str) -> str | None:
    if data == "tfds" or not attributes:
        return None
    return f"expected none for data {data} (some: tfds only), got {attributes}"


def _enough_digits(train: int, validation: int, test: int, data: str) -> str | None:
    total = train + validation + test
    if data != "digits" or total <= NUM_DIGITS:
        return None
    return f"expected num_train + num_validation + num_test <= {NUM_DIGITS} digits, got {total}"


def _enough_training_images(train: int, validation: int, data: str) -> str | None:
    total = train + validation
    if data not in ("mnist", "fashion_mnist") or total <= NUM_MNIST_TRAIN:
        return None
    return f"expected num_train + num_validation <= {NUM_MNIST_TRAIN} training images, got {total}"


def _enough_test_images(test: int, data: str) -> str | None:
    if data not in ("mnist", "fashion_mnist") or test <= NUM_MNIST_TEST:
        return None
    return f"expected at most {NUM_MNIST_TEST} for data {data}, got {test}"


def _pairs_for_lam(particles: int, lam: float) -> str | None:
    return f"expected 2 or more for lam = {lam} > 0, got 1" if lam > 0.0 and particles < 2 else None


def _groups_divide(batch: int, group: int, methods: Sequence[str]) -> str | None:
    if "marginal" not in methods or batch % group == 0:
        return None
    return f"expected a multiple of guidance.one_step.group_size = {group}, got {batch}"


def _snapshots_fit(snapshots: int, methods: Sequence[str], one: int, trajectory: int) -> str | None:
    steps = [trajectory if method in TRAJECTORIES else one for method in methods]
    if not steps or snapshots <= min(steps):
        return None
    return f"expected at most {min(steps)}, the steps of the shortest training, got {snapshots}"


def _reward_of_data(
    name: str, data: str, direction: Sequence[float], centre: Sequence[float]
) -> str | None:
    if name == "classifier":
        return None if data != "mixture" else f"expected another one for data {data}, got {name!r}"
    field, vector = ("centre", centre) if name == "bump" else ("direction", direction)
    if name == "none" or len(vector) == SIZES.get(data):
        return None
    if data not in SIZES:
        return f"expected none or classifier for data {data}, got {name!r}"
    return (
        f"expected none, or reward.{field} of {SIZES[data]} numbers for data {data}, got {name!r}"
    )


def _reward_of_methods(name: str, methods: Sequence[str]) -> str | None:
    if name == "none" or (methods and "guided_score_matching" not in methods):
        return None
    return (
        "expected none unless guidance.methods names some (guided_score_matching takes no reward), "
        f"got {name!r}"
    )


def _linear_is_held(
    name: str, methods: Sequence[str], one_step: float, trajectory: float
) -> str | None:
    """A linear reward outgrows a distance of power 1 or less; l2 has power 2."""
    powers = dict.fromkeys(TRAJECTORIES, trajectory) | {"l2": 2.0}
    least = min((powers.get(method, one_step) for method in methods), default=2.0)
    if name != "linear" or least > 1.0:
        return None
    return f"expected a bounded reward, or beta > 1, for a loss bounded below, got beta {least}"


def _reward_snapshots_fit(snapshots: int, name: str, one: int, trajectory: int) -> str | None:
    if name == "none" or snapshots <= min(one, trajectory):
        return None
    return f"expected at most {min(one, trajectory)}, the steps of one weight, got {snapshots}"


def _whole_batches(size: int, batch: int) -> str | None:
    if size % batch == 0:
        return None
    return f"expected a multiple of statistics.batch_size = {batch}, got {size}"


def _no_reward_from_statistics(size: int, name: str, methods: Sequence[str]) -> str | None:
    if size == 0 or name == "none" or not {*methods}.difference(TRAJECTORIES):
        return None
    return f"expected 0 with reward.name = {name!r}, which needs predictions, got {size}"


def _features_of_images(methods: Sequence[str], data: str) -> str | None:
    if "trajectory_features" not in methods or data != "mixture":
        return None
    return f"expected no trajectory_features for data {data} (images only), got {methods}"


def _features_without_reward(methods: Sequence[str], reward: str) -> str | None:
    if "trajectory_features" not in methods or reward == "none":
        return None
    return f"expected no trajectory_features with reward.name = {reward!r}, got {methods}"


def _features_are_others(features: str, classifier: str, methods: Sequence[str]) -> str | None:
    """A network that trains must not be one that measures."""
    if "trajectory_features" not in methods or features != classifier:
        return None
    return f"expected another one than classifier.network, got {features!r}"


def _reward_is_of_another_network(classifier: str, reward: str) -> str | None:
    if reward != "classifier" or classifier == "mlp":
        return None
    return f"expected mlp where a convolutional network rewards, got {classifier!r}"


def _lenet_of_large_images(network: str, data: str, size: int) -> str | None:
    side = denoiser_rules.side_of(data, size)
    if network != "lenet" or side is None or side >= SMALLEST_OF_LENET:
        return None
    return f"expected mlp or conv for images below 16x16, got {network!r}"


def _conv_of_images(classifier: str, data: str) -> str | None:
    if data != "mixture" or classifier == "mlp":
        return None
    return f"expected mlp for data {data}, got {classifier!r}"


def _primary_of_data(primary: str, data: str, reward: str) -> str | None:
    if primary == "energy_distance" or (data != "mixture" and reward == "none"):
        return None
    return f"expected energy_distance for data {data}, reward {reward}, got {primary!r}"


def _primary_of_features(primary: str, features: str) -> str | None:
    """A covariance of 2,048 features takes thousands of examples of a class."""
    if primary != "class_frechet_distance" or features != "inception":
        return None
    return f"expected another one for features {features}, got {primary!r}"


def _features_of_data(features: str, data: str, reward: str) -> str | None:
    if features == "classifier" or (data != "mixture" and reward == "none"):
        return None
    return f"expected classifier for data {data}, reward {reward}, got {features!r}"


def _inception_file(path: str, features: str, fake: bool) -> str | None:
    if features != "inception":
        return f"expected '' for features {features}, got {path!r}" if path else None
    return None if path or fake else f"expected a file, made once by: {CONVERT}, got {path!r}"


def _inception_sum(sha256: str, features: str, fake: bool) -> str | None:
    if features != "inception" or fake or sha256:
        return None
    return f"expected that of inception_path, as its conversion prints it, got {sha256!r}"


ONE_STEP, TRAJECTORY = "guidance.one_step.", "guidance.trajectory."
EVALUATION = "evaluation."
LOWER, UPPER = "evaluation.interval_lower", "evaluation.interval_upper"

ACROSS: tuple[Across, ...] = (
    Across((ONE_STEP + "s_min", ONE_STEP + "delta", ONE_STEP + "zeta"), _s_range),
    Across((ONE_STEP + "num_particles", ONE_STEP + "lam"), _pairs_for_lam),
    Across((ONE_STEP + "batch_size", ONE_STEP + "group_size", "guidance.methods"), _groups_divide),
    Across((TRAJECTORY + "num_particles", TRAJECTORY + "lam"), _pairs_for_lam),
    Across((TRAJECTORY + "num_targets", TRAJECTORY + "lam"), _pairs_for_lam),
    Across(("guidance.omega.init", "guidance.omega.max"), _init_below_max),
    Across(
        (
            "guidance.num_snapshots",
            "guidance.methods",
            ONE_STEP + "num_steps",
            TRAJECTORY + "num_steps",
        ),
        _snapshots_fit,
    ),
    Across(
        ("reward.name", "data.name", "reward.direction", "reward.centre"),
        _reward_of_data,
    ),
    Across(("reward.name", "guidance.methods"), _reward_of_methods),
    Across(
        ("reward.name", "guidance.methods", ONE_STEP + "beta", TRAJECTORY + "beta"),
        _linear_is_held,
    ),
    Across(
        (
            "guidance.num_snapshots",
            "reward.name",
            "reward.one_step_num_steps",
            "reward.trajectory_num_steps",
        ),
        _reward_snapshots_fit,
    ),
    Across(("denoiser.level", "data.name"), _exact_is_mixture),
    *(Across(fields, wrong) for fields, wrong in denoiser_rules.ACROSS),
    Across(("data.num_train", "data.num_validation", "data.num_test", "data.name"), _enough_digits),
    Across(("data.num_train", "data.num_validation", "data.name"), _enough_training_images),
    Across(("data.num_test", "data.name"), _enough_test_images),
    Across(("data.path", "data.name", "fake_data"), _path_of_data),
    Across(("data.attributes", "data.name"), _attributes_of),
    Across(("data.size", "data.name"), _size_of_data),
    Across(("sampling.churn", "sampling.solver"), _churn_is_ddim),
    *(
        Across((f"statistics.{name}", "statistics.batch_size"), _whole_batches)
        for name in ("num_examples", "num_held_out", "shard_examples")
    ),
    Across(
        ("statistics.num_examples", "reward.name", "guidance.methods"), _no_reward_from_statistics
    ),
    Across(("evaluation.num_screening", "evaluation.num_samples"), _screening_at_most_samples),
    Across(("guidance.methods", "data.name"), _features_of_images),
    Across(("guidance.methods", "reward.name"), _features_without_reward),
    Across(("features.network", "classifier.network", "guidance.methods"), _features_are_others),
    Across(("classifier.network", "reward.name"), _reward_is_of_another_network),
    Across(("classifier.network", "data.name"), _conv_of_images),
    Across(("classifier.network", "data.name", "data.size"), _lenet_of_large_images),
    Across(("features.network", "data.name", "data.size"), _lenet_of_large_images),
    Across(("evaluation.primary", "data.name", "reward.name"), _primary_of_data),
    Across((EVALUATION + "primary", EVALUATION + "features"), _primary_of_features),
    Across((EVALUATION + "features", "data.name", "reward.name"), _features_of_data),
    Across((EVALUATION + "inception_path", EVALUATION + "features", "fake_data"), _inception_file),
    Across((EVALUATION + "inception_sha256", EVALUATION + "features", "fake_data"), _inception_sum),
    Across((LOWER, UPPER), _some_upper_above),
    Across((UPPER, LOWER), _some_lower_below),
)
