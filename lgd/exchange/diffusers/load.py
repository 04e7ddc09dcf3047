"""A pipeline of diffusers as a denoiser with its conditions and its codec.

model = lgd.exchange.diffusers.load("path/of/a/pipeline")
c = model.conditions(["a photo of a cat", "a photo of a dog"])
guidance = lgd.learn_guidance(key, model.denoiser, model.params, model.encode(images), c)
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lgd import conditions
from lgd.denoisers import FunctionDenoiser, from_function
from lgd.exchange.diffusers.codec import Codec, channels_first
from lgd.exchange.diffusers.families import FAMILIES, Family
from lgd.exchange.diffusers.prompts import Prompts
from lgd.exchange.diffusers.schedulers import is_edm, kind_of, schedule_of, times_of, timestep_of
from lgd.exchange.extras import required
from lgd.exchange.torch import to_function
from lgd.machinery.paths import local
from lgd.machinery.words import shown
from lgd.types import Condition, Params

EDM_DATA_STD = 0.5  # sigma_data of EDM's preconditioning, where the scheduler names none


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A pipeline of diffusers in lgd's terms.

    denoiser, params: its network, on latents where there is a codec, channels first. prompts: turns
    texts into conditions; None where conditions are labels. codec: between images and latents, or
    None. scheduler: that of the pipeline.
    """

    denoiser: FunctionDenoiser
    params: Params = dataclasses.field(repr=False)
    scheduler: Any = dataclasses.field(repr=False)
    prompts: Prompts | None = None
    codec: Codec | None = None

    def conditions(self, texts_or_labels: Sequence[str] | Sequence[int]) -> Condition:
        """The condition of every text, or of every label, leaves (b, ...).

        Raises:
          ValueError: for texts where the pipeline takes labels, and the other way round.
        """
        if self.prompts is not None:
            return self.prompts(texts_or_labels)
        labels = np.asarray(texts_or_labels)
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise ValueError(
                f"expected labels (b,) for this pipeline, got {shown(texts_or_labels)}"
            )
        return conditions.checked(labels)

    def of_classes(
        self, texts_or_labels: Sequence[str] | Sequence[int]
    ) -> tuple[FunctionDenoiser, Params]:
        """The denoiser of conditions that are numbers of these texts or labels, 0 to n - 1.

        So a table of weights has a row for each, and data sets need no embeddings. n is no
        condition.

        Raises:
          ValueError: see `conditions`.
        """
        inner, c = self.denoiser, self.conditions(texts_or_labels)
        null = inner.null(jax.tree.map(lambda leaf: jnp.asarray(leaf[:1]), c))
        rows = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), c, null)

        def prediction(params: Params, x: Array, t: Array, k: Array) -> Array:
            condition = jax.tree.map(lambda leaf: leaf[k], params["conditions"])
            return inner.function(params["network"], x, t, condition)

        denoiser = from_function(
            prediction, schedule=inner.schedule, kind=inner.kind, null=len(texts_or_labels)
        )
        return denoiser, {"network": self.params, "conditions": rows}

    def shape(self, image_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of what the denoiser takes for an image (h, w, channels).

        Raises:
          ValueError: for images that the codec does not take.
        """
        if self.codec is None:
            return (image_shape[-1], *image_shape[:-1])
        return self.codec.shape(image_shape)

    def times(self, num_steps: int, **options: Any) -> Float[Array, " n"]:
        """The grid that the pipeline's scheduler walks, see `times_of`."""
        return times_of(self.scheduler, num_steps, **options)

    def encode(self, images: Any) -> Float[np.ndarray, "b c h w"]:
        """Latents of images (b, h, w, channels) in [-1, 1]; without a codec channels first.

        Raises ValueError for images of other shapes, or not in [-1, 1].
        """
        return channels_first(images) if self.codec is None else self.codec.encode(images)

    def decode(self, x: Any) -> Float[np.ndarray, "b h w c"]:
        """Images (b, h, w, channels) in [-1, 1] of latents; without a codec x, channels last."""
        return np.moveaxis(np.asarray(x), 1, -1) if self.codec is None else self.codec.decode(x)


def load(
    pipeline: Any,
    *,
    null: Any = None,
    dtype: Any = None,
    cache: str | os.PathLike[str] | None = None,
) -> Model:
    """A pipeline of diffusers in lgd's terms.

    Args:
      pipeline: an instance of a class in `families.FAMILIES`, or a folder that one was saved to;
        nothing is downloaded.
      null: the label of no class; None: 1000 for DiT. Of pipelines with texts it is the empty text.
      dtype: of the network's parameters, such as ``jnp.bfloat16``; None: as they are.
      cache: a folder that keeps the embeddings of texts, so that text encoders run once.

    Raises:
      ImportError: without the extra ``lgd[diffusers]``.
      FileNotFoundError: where there is no such folder.
      ValueError: for a pipeline of another class, without a network, or with labels and no null.
      SchedulerError: for a scheduler that lgd cannot translate.
    """
    pipeline = _opened(pipeline) if isinstance(pipeline, str | os.PathLike) else pipeline
    family = FAMILIES.get(type(pipeline).__name__)
    if family is None:
        known = ", ".join(FAMILIES)
        raise ValueError(f"pipeline: expected one of {known}, got {type(pipeline).__name__}")
    network = getattr(pipeline, family.network, None)
    if network is None:
        raise ValueError(f"pipeline: expected a {family.network}, got none")
    prompts = None if family.encode is None else Prompts(pipeline, family.encode, cache)
    call = functools.partial(family.call, pipeline)
    null = _null(family, null, prompts)
    denoiser, params = _denoiser(pipeline.scheduler, network, call, null, dtype)
    vae = getattr(pipeline, "vae", None)
    codec = None if vae is None else Codec(vae)
    return Model(denoiser, params, pipeline.scheduler, prompts, codec)


def _opened(folder: str | os.PathLike[str]) -> Any:
    path = local(folder)
    diffusers = required("diffusers", "diffusers")
    if not (path / "model_index.json").is_file():
        raise FileNotFoundError(f"{path}: expected a folder with model_index.json of a pipeline")
    return diffusers.DiffusionPipeline.from_pretrained(path, local_files_only=True)


def _null(family: Family, null: Any, prompts: Prompts | None) -> Any:
    if prompts is not None:
        if null is not None:
            raise ValueError("null: expected none, since that of texts is the empty text")
        return prompts.null
    if null is None and family is FAMILIES["DiTPipeline"]:
        return 1000
    if null is None:
        raise ValueError("null: expected the label that the network takes for no class, got None")
    return null


def _denoiser(
    scheduler: Any, network: Any, call: Callable[..., Any], null: Any, dtype: Any
) -> tuple[FunctionDenoiser, Params]:
    """The network as a denoiser: learned variances cut, EDM's preconditioning undone."""
    schedule = schedule_of(scheduler)
    function, params = to_function(network, call, dtype=dtype)

    def called(params: Params, x: Array, t: Array, c: Condition) -> Array:
        inside = jax.tree.map(lambda leaf: _floats(leaf, dtype), (x, c))
        output = function(params, inside[0], timestep_of(scheduler, t), inside[1])
        return output[:, : x.shape[1]].astype(x.dtype)

    def preconditioned(params: Params, x: Array, t: Array, c: Condition) -> Array:
        """x0_hat of EDM (Karras et al., 2022, Table 1)."""
        std = getattr(scheduler.config, "sigma_data", EDM_DATA_STD)
        sigma = schedule.sigma(t).reshape(-1, *[1] * (x.ndim - 1))
        total = sigma**2 + std**2
        output = called(params, x / jnp.sqrt(total), t, c)
        return std**2 / total * x + sigma * std / jnp.sqrt(total) * output

    if is_edm(scheduler):
        return from_function(preconditioned, schedule=schedule, kind="x0", null=null), params
    kind = kind_of(scheduler)
    return from_function(called, schedule=schedule, kind=kind, null=null), params


def _floats(leaf: Any, dtype: Any) -> Array:
    leaf = jnp.asarray(leaf)
    return leaf if dtype is None or leaf.dtype.kind != "f" else leaf.astype(dtype)
