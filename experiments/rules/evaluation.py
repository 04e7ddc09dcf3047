"""Rules across the fields of evaluation and of its classifiers."""

from collections.abc import Sequence

from experiments.methods import FEATURES
from experiments.rules.across import Across
from experiments.rules.data import side_of

CONVERT = (
    "python -m experiments.convert_inception --torch=pt_inception-2015-12-05-6726825d.pth "
    "--out=inception.safetensors (docs/metrics.md says where the weights are)"
)
SMALLEST_OF_LENET = 16  # pixels along a side: less is nothing after its second pooling


def _screening_at_most_samples(screening: int, samples: int) -> str | None:
    if screening <= samples:
        return None
    return f"expected at most evaluation.num_samples = {samples}, got {screening}"


def _some_upper_above(lower: Sequence[float], upper: Sequence[float]) -> str | None:
    stuck = [end for end in lower if end >= max(upper)]
    return (
        f"expected every end < {max(upper)}, the largest upper end, got {stuck}" if stuck else None
    )


def _some_lower_below(upper: Sequence[float], lower: Sequence[float]) -> str | None:
    stuck = [end for end in upper if end <= min(lower)]
    return f"expected every end > {min(lower)}, the least lower end, got {stuck}" if stuck else None


def _features_are_others(
    features: str, classifier: str, methods: Sequence[str], primary: str
) -> str | None:
    """Refuse features of the same kind of network for training or selection and for evaluation."""
    used = FEATURES in methods or primary != "energy_distance"
    if not used or features != classifier:
        return None
    return f"expected another one than classifier.network, got {features!r}"


def _reward_is_of_another_network(classifier: str, reward: str) -> str | None:
    if reward != "classifier" or classifier == "mlp":
        return None
    return f"expected mlp where a convolutional network rewards, got {classifier!r}"


def _conv_of_images(classifier: str, data: str) -> str | None:
    if data != "mixture" or classifier == "mlp":
        return None
    return f"expected mlp for data {data}, got {classifier!r}"


def _lenet_of_large_images(network: str, data: str, size: int) -> str | None:
    side = side_of(data, size)
    if network != "lenet" or side is None or side >= SMALLEST_OF_LENET:
        return None
    return f"expected mlp or conv for images below 16x16, got {network!r}"


def _primary_of_data(primary: str, data: str, reward: str) -> str | None:
    if primary == "energy_distance" or (data != "mixture" and reward == "none"):
        return None
    return f"expected energy_distance for data {data}, reward {reward}, got {primary!r}"


def _primary_of_features(primary: str, features: str) -> str | None:
    """Refuse a covariance of 1,280 features or more, which takes thousands of examples a class."""
    if primary != "class_frechet_distance" or features == "classifier":
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


EVALUATION = "evaluation."
LOWER, UPPER = "evaluation.interval_lower", "evaluation.interval_upper"

ACROSS: tuple[Across, ...] = (
    Across((EVALUATION + "num_screening", EVALUATION + "num_samples"), _screening_at_most_samples),
    Across(
        (
            "features.network",
            "classifier.network",
            "guidance.methods",
            EVALUATION + "primary",
        ),
        _features_are_others,
    ),
    Across(("classifier.network", "reward.name"), _reward_is_of_another_network),
    Across(("classifier.network", "data.name"), _conv_of_images),
    Across(("classifier.network", "data.name", "data.size"), _lenet_of_large_images),
    Across(("features.network", "data.name", "data.size"), _lenet_of_large_images),
    Across((EVALUATION + "primary", "data.name", "reward.name"), _primary_of_data),
    Across((EVALUATION + "primary", EVALUATION + "features"), _primary_of_features),
    Across((EVALUATION + "features", "data.name", "reward.name"), _features_of_data),
    Across((EVALUATION + "inception_path", EVALUATION + "features", "fake_data"), _inception_file),
    Across((EVALUATION + "inception_sha256", EVALUATION + "features", "fake_data"), _inception_sum),
    Across((LOWER, UPPER), _some_upper_above),
    Across((UPPER, LOWER), _some_lower_below),
)
