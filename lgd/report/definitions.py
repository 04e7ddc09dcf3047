"""Methods and metrics in words."""

import inspect
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from lgd.guidance import FAMILIES
from lgd.plots import theme


class Metric(NamedTuple):
    """A metric: its title, whether less of it is better (None: neither), what it is."""

    title: str
    lower_is_better: bool | None
    meaning: str


_METRICS = {
    "energy_distance": Metric(
        "energy distance", True, "Mean distance between samples and real test data, less half of "
        "the mean distances within each, averaged over classes; 0 for equal laws."
    ),
    "frechet_distance": Metric(
        "Fréchet distance", True, "Distance between Gaussians fitted to features of samples and of "
        "real test data; with Inception features it is the FID."
    ),
    "class_frechet_distance": Metric(
        "Fréchet distance by class", True, "The Fréchet distance of each class by itself, averaged."
    ),
    "kid": Metric(
        "KID", True, "Kernel distance between features of samples and of real test data, without "
        "bias: the squared MMD with a cubic kernel."
    ),
    "precision": Metric(
        "precision", False, "Share of samples that lie where real test data lie, by nearest "
        "neighbours of features: quality."
    ),
    "recall": Metric(
        "recall", False, "Share of real test data that lie where samples lie, by nearest "
        "neighbours of features: diversity."
    ),
    "inception_score": Metric(
        "Inception score", False, "How sure a classifier is of every sample and how many classes "
        "it finds among all; real data are not looked at."
    ),
    "accuracy": Metric(
        "accuracy", False, "Share of samples in which a classifier finds the class that was asked "
        "for."
    ),
    "reward": Metric("reward", False, "Mean reward of samples, by the network that measures."),
    "training_reward": Metric(
        "reward in training", None, "Mean reward of samples, by the network that trained."
    ),
    "loss": Metric(
        "loss", None, "The energy distance less the reward in training times its weight; among "
        "rows of one weight the lower is better."
    ),
    "tilt": Metric("nearest tilt", None, "The weight whose tilted law the samples are nearest to."),
    "tilt_distance": Metric(
        "distance to the tilt", True, "The energy distance to that tilted law."
    ),
}  # fmt: skip
_LEARNED = {
    "self_consistency": "a guided step from t to s should look like noising the data to s at once "
    "(Galashov et al., 2025, Alg. 2); compared by an energy distance",
    "l2": "as self-consistency, compared by the squared distance of single samples",
    "conditional_marginal": "as self-consistency, the particles of one class compared with other "
    "real examples of that class",
    "marginal": "as self-consistency, particles of all classes compared together",
    "guided_score_matching": "the guided prediction is regressed on the data",
    "trajectory": "the sampler is unrolled from noise, and samples of each class are compared with "
    "real ones by an energy distance",
    "trajectory_features": "as trajectory, compared in features of networks that neither select "
    "nor measure",
    "directions": "as trajectory, with a second weight that leads away from a weaker denoiser",
    "path": "weights are chosen step by step along the sampler's own path, without gradients",
}
UNGUIDED = "unguided"
HAND_MADE, LEARNED, GIVEN = "hand-made", "learned", "given"  # kinds of rows, beside `UNGUIDED`


def kind_of(row: Mapping[str, Any]) -> str:
    """What a row of results is: unguided, hand-made, learned or given."""
    family = row.get("family", row["method"])
    if family == UNGUIDED:
        return UNGUIDED
    if family in FAMILIES:
        return HAND_MADE
    return LEARNED if theme.is_learned(family) else GIVEN


def metric(name: str) -> Metric:
    """What is known of a metric; of ``measure.metric`` that of its last part.

    Of a metric that is not known neither direction is better.
    """
    title, _, last = name.rpartition(".")
    title = title.replace("_", " ")
    if last not in _METRICS:
        return Metric(name.replace("_", " "), None, "A metric of the user's own.")
    found = _METRICS[last]
    return found._replace(title=f"{title}: {found.title}") if title else found


def is_lower_better(name: str, primary: str, lower_is_better: bool) -> bool | None:
    """Whether less of a metric is better; of the primary one the results say so."""
    return lower_is_better if name == primary else metric(name).lower_is_better


def method(row: Mapping[str, Any]) -> str:
    """What a row guides by, in a sentence."""
    kind, family = kind_of(row), row.get("family", row["method"])
    if kind == UNGUIDED:
        return "Plain conditional sampling: ω = 0 everywhere."
    if kind == HAND_MADE:
        return f"Hand-made, tuned on validation data: {_first_sentence(FAMILIES[family].make)}"
    training = family.removeprefix("learned:")
    if kind == GIVEN:
        return "Guidance that was given to be compared, under this name."
    return f"Learned: {_LEARNED.get(training, 'by an objective of this name')}."


def _first_sentence(function: Any) -> str:
    """The first paragraph of a docstring without its markup."""
    paragraph = (inspect.getdoc(function) or "").partition("\n\n")[0]
    return re.sub(r"`+", "", " ".join(paragraph.split()))
