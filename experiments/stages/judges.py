"""The network of a config that measures images without their classes: Inception or EfficientNet."""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array
from ml_collections import ConfigDict

from experiments.rules.evaluation import CONVERT
from lgd.evaluation.measures import Outputs
from lgd.exchange import efficientnet
from lgd.machinery import digests
from lgd.machinery.paths import InputFileError
from lgd.metrics import inception
from lgd.metrics.reference import FeatureNetwork
from lgd.types import Params

_FIELDS = "evaluation.inception_"


class Judge(NamedTuple):
    """The network that measures.

    network: its features (b, f). outputs: (b, *dims) -> these and the logits of its score.
    """

    network: FeatureNetwork
    outputs: Outputs


def check(config: ConfigDict) -> list[str]:
    """What is wrong with the file that the config names, if it needs one."""
    settings = config.evaluation
    if settings.features == "efficientnet":
        return _missing()
    if settings.features != "inception" or config.fake_data:
        return []
    try:
        sha256 = digests.of_file(settings.inception_path)
    except (OSError, InputFileError) as error:
        got = "No such file" if isinstance(error, FileNotFoundError) else error
        return [f"{_FIELDS}path: expected a file, made once by: {CONVERT}, got {got}"]
    if sha256 == settings.inception_sha256:
        return []
    return [f"{_FIELDS}sha256: expected that of {settings.inception_path}, {sha256}, got "
            f"{settings.inception_sha256}"]  # fmt: skip


def _missing() -> list[str]:
    try:
        for size in efficientnet.SIZES:
            efficientnet.load(size)
    except ImportError as error:
        return [f"evaluation.features: {error}"]
    return []


def load(config: ConfigDict, *, selects: bool = False) -> Judge:
    """Inception-v3 from the file of the config, or with random parameters on generated data.

    Or EfficientNet-lite, of another size where it selects than where it measures.
    """
    settings = config.evaluation
    if settings.features == "efficientnet":
        return Judge(*efficientnet.load("lite0" if selects else "lite2"))
    if config.fake_data:
        params = _random_params()
    else:
        params = inception.load(settings.inception_path, sha256=settings.inception_sha256)
    params = jax.device_put(params)

    def outputs(x: Array) -> tuple[Array, Array]:
        both = inception.outputs(params, x)
        return both.features, both.score_logits

    return Judge(inception.feature_network(params), outputs)


def _random_params() -> Params:
    """Variances 1, kernels of variance 2 / fan-in, all else 0 or 1."""
    rng = np.random.default_rng(0)

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        if path[-1].key == "kernel":
            scale = (2.0 / np.prod(leaf.shape[:-1])) ** 0.5
            return (scale * rng.standard_normal(leaf.shape)).astype(leaf.dtype)
        return np.full(leaf.shape, path[-1].key in ("scale", "var"), leaf.dtype)

    return jax.tree.map_with_path(draw, inception.template())
