"""Rules across the fields of evaluation and of its classifiers."""

from collections.abc import Sequence

from experiments.methods import FEATURES
from experiments.rules.across import Across, has_images, refused
from experiments.rules.data import side_of

CONVERT = (
    "python -m experiments.convert_inception --torch=pt_inception-2015-12-05-6726825d.pth "
    "--out=inception.safetensors (docs/metrics.md says where the weights are)"
)
SMALLEST_OF_LENET = 16  # pixels along a side: less is nothing after its second pooling


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


def _lenet_of_large_images(network: str, data: str, size: int) -> str | None:
    side = side_of(data, size)
    if network != "lenet" or side is None or side >= SMALLEST_OF_LENET:
        return None
    return f"expected mlp or conv for images below 16x16, got {network!r}"


def _inception_file(path: str, features: str, fake: bool) -> str | None:
    if features != "inception":
        return f"expected '' for features {features}, got {path!r}" if path else None
    return None if path or fake else f"expected a file, made once by: {CONVERT}, got {path!r}"


EVALUATION = "evaluation."
LOWER, UPPER = "evaluation.interval_lower", "evaluation.interval_upper"

ACROSS: tuple[Across, ...] = (
    refused(
        (EVALUATION + "num_screening", EVALUATION + "num_samples"),
        lambda screening, samples: screening > samples,
        "at most evaluation.num_samples = {1}",
    ),
    Across(
        (
            "features.network",
            "classifier.network",
            "guidance.methods",
            EVALUATION + "primary",
        ),
        _features_are_others,
    ),
    refused(
        ("classifier.network", "reward.name"),
        lambda classifier, reward: reward == "classifier" and classifier != "mlp",
        "mlp where a convolutional network rewards",
    ),
    refused(
        ("classifier.network", "data.name"),
        lambda classifier, data: not has_images(data) and classifier != "mlp",
        "mlp for data {1}",
    ),
    Across(("classifier.network", "data.name", "data.size"), _lenet_of_large_images),
    Across(("features.network", "data.name", "data.size"), _lenet_of_large_images),
    *(
        refused(
            (EVALUATION + field, "data.name", "reward.name"),
            lambda value, data, reward, least=least: (
                value != least and not (has_images(data) and reward == "none")
            ),
            f"{least} for data {{1}}, reward {{2}}",
        )
        for field, least in (("primary", "energy_distance"), ("features", "classifier"))
    ),
    refused(  # a covariance of 1,280 features or more takes thousands of examples a class
        (EVALUATION + "primary", EVALUATION + "features"),
        lambda primary, features: primary == "class_frechet_distance" and features != "classifier",
        "another one for features {1}",
    ),
    Across((EVALUATION + "inception_path", EVALUATION + "features", "fake_data"), _inception_file),
    refused(
        (EVALUATION + "inception_sha256", EVALUATION + "features", "fake_data"),
        lambda sha256, features, fake: features == "inception" and not (fake or sha256),
        "that of inception_path, as its conversion prints it",
    ),
    Across((LOWER, UPPER), _some_upper_above),
    Across((UPPER, LOWER), _some_lower_below),
)
