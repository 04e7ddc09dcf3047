"""The pretrained pipeline of diffusers of a config: a denoiser of latents, and its codec."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from experiments import config as configs
from lgd.data import Dataset, Split
from lgd.exchange.diffusers import Model, load
from lgd.machinery import digests, stopping
from lgd.machinery.progress import bar, phase
from lgd.types import Condition, Denoiser, FeatureFn, Params

EMBEDDINGS = "lgd-embeddings"  # folder beside captions that keeps their conditions


def is_pretrained(config: ConfigDict) -> bool:
    """Whether the denoiser comes from a pipeline."""
    return bool(config.denoiser.level == "pretrained")


def model(config: ConfigDict) -> Model:
    """The pipeline, read once.

    Raises:
      ImportError: without the extra ``lgd[diffusers]``.
      FileNotFoundError: where there is no such folder.
      ValueError: for a pipeline that lgd does not take.
    """
    cache = f"{config.data.path}/{EMBEDDINGS}" if config.data.name == "captions" else None
    return _opened(config.denoiser.pipeline, cache)


@functools.lru_cache(maxsize=1)
def _opened(folder: str, cache: str | None) -> Model:
    return load(folder, cache=cache)


def encode_texts(config: ConfigDict) -> Callable[[Sequence[str]], Condition]:
    """The function from captions to conditions.

    It raises ConfigError for a pipeline that takes no texts, or cannot encode them.
    """

    def encode(texts: Sequence[str]) -> Condition:
        pipeline = model(config)
        if pipeline.prompts is None:
            got = "one that takes labels; use data.name=images"
            raise configs.ConfigError([f"denoiser.pipeline: expected one of texts, got {got}"])
        try:
            with phase(f"encode {len(texts)} captions"):
                return pipeline.conditions(texts)
        except ValueError as error:
            raise configs.ConfigError([f"denoiser.pipeline: {error}"]) from None

    return encode


def denoiser(config: ConfigDict, class_names: tuple[str, ...]) -> tuple[Denoiser, Params]:
    """The denoiser whose conditions are the classes or captions of the data, and its parameters.

    Every class is the text that ``denoiser.prompt`` makes of its name, or, in a pipeline with
    labels, its number or the one of ``denoiser.class_ids``.
    """
    if config.data.name == "captions":
        pipeline = model(config)
        return pipeline.denoiser, pipeline.params
    return _of_classes(model(config), config.denoiser.prompt, class_ids(config), class_names)


def class_ids(config: ConfigDict) -> tuple[int, ...]:
    """The labels of the pipeline that the classes are; none where they are its first ones."""
    return tuple(int(each) for each in config.denoiser.class_ids.split(",") if each)


@functools.lru_cache(maxsize=1)
def _of_classes(
    pipeline: Model, prompt: str, class_ids: tuple[int, ...], class_names: tuple[str, ...]
) -> tuple[Denoiser, Params]:
    if pipeline.prompts is not None:
        return pipeline.of_classes([prompt.replace("{}", name) for name in class_names])
    return pipeline.of_classes(class_ids or tuple(range(len(class_names))))


def unreadable(config: ConfigDict) -> list[str]:
    """What is wrong with the pipeline by itself."""
    try:
        if is_pretrained(config):
            model(config)
    except (ImportError, OSError, ValueError) as error:
        return [f"denoiser.pipeline: {error}"]
    return []


def check(config: ConfigDict, dataset: Dataset) -> list[str]:
    """What is wrong with the pipeline, or with images and classes that it is to be learned for."""
    try:
        pipeline = model(config)
        shape = pipeline.shape(dataset.shape)
        count = len(class_ids(config))
        if count not in (0, dataset.num_classes):
            return [f"denoiser.class_ids: expected {dataset.num_classes} or none, got {count}"]
        network, params = denoiser(config, dataset.class_names)
        one = jax.ShapeDtypeStruct((1, *shape), np.float32)
        time, c = jax.ShapeDtypeStruct((1,), np.float32), dataset.conditions
        c = jax.tree.map(lambda leaf: leaf[:1], c)
        jax.eval_shape(lambda p, x, t, c: network.apply(p, x, t=t, c=c), params, one, time, c)
    except (ImportError, OSError, ValueError) as error:
        return [f"denoiser.pipeline: {error}"]
    except (RuntimeError, TypeError) as error:  # of the network, for shapes that it does not take
        return [f"denoiser.pipeline: images {dataset.shape} do not fit its network: {error}"]
    return []


def digest(config: ConfigDict) -> dict[str, str]:
    """The sha256 of the pipeline by which a run is bound to it, by name; none without one."""
    if not is_pretrained(config):
        return {}
    pipeline = model(config)
    codec = None if pipeline.codec is None else pipeline.codec.params
    scheduler = digests.of_json(dict(pipeline.scheduler.config))
    weights = digests.of_tree((pipeline.params, codec))
    return {"pipeline sha256": weights, "scheduler sha256": scheduler}


def encoded(config: ConfigDict, split: Split) -> Float[np.ndarray, "n *dims"]:
    """Latents of the images of a split, by parts, so that images may lie in files."""
    pipeline, part, parts = model(config), 256, []
    starts = range(0, len(split.x), part)
    with bar("encode images", len(starts)) as advance:
        for first in starts:
            stopping.check("encode images")
            parts.append(pipeline.encode(np.asarray(split.x[first : first + part])))
            advance("")
    return np.concatenate(parts)


def decoder(config: ConfigDict) -> Callable[[Any], np.ndarray] | None:
    """The function from samples to images (n, h, w, channels); None where samples are images."""
    return model(config).decode if is_pretrained(config) else None


def of_images(config: ConfigDict, function: FeatureFn) -> FeatureFn:
    """A function of images as one of latents, traceable by JAX."""
    codec = model(config).codec

    def of_latents(x: Float[Array, "n *dims"]) -> Float[Array, "n f"]:
        images = x if codec is None else codec.decoded(codec.params, x)
        return function(jnp.moveaxis(images, 1, -1))

    return of_latents
