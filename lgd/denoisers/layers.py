"""Layers of the image networks: embeddings of noise level and condition, adaLN, attention.

``dtype`` is the type of convolutions, matrix products and the arrays between layers; parameters,
statistics of norms, softmax and embeddings are always float32.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

DType = Literal["float32", "bfloat16"]
Remat = Literal["none", "activations", "blocks"]
Conditions = Int[Array, " b"] | Float[Array, "b e"]


def fourier_features(logsnr: Float[Array, " b"], size: int) -> Float[Array, "b f"]:
    """Return sines and cosines of logsnr at ``size / 2`` wavelengths from 1 to 100, (b, size)."""
    wavelengths = jnp.geomspace(1.0, 100.0, size // 2)
    angles = 2.0 * math.pi * logsnr[:, None] / wavelengths[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class ConditionEmbedding(nn.Module):
    """Embedding of a condition that is a label (b,), or with num_classes = None a vector (b, e).

    Two values are reserved for "no condition", and have a learned embedding: the label num_classes,
    and the vector of zeros.
    """

    num_classes: int | None
    width: int

    @nn.compact
    def __call__(self, c: Conditions) -> Float[Array, "b w"]:
        """Return embeddings (b, width).

        Raises:
          ValueError: for labels where vectors are expected, or vectors where labels are.
        """
        labels = jnp.issubdtype(c.dtype, jnp.integer)
        if labels != (self.num_classes is not None) or c.ndim != (1 if labels else 2):
            expected = "vectors (b, e)" if self.num_classes is None else "integer labels (b,)"
            raise ValueError(f"expected {expected} as conditions, got {c.dtype} {c.shape}")
        if self.num_classes is not None:
            return nn.Embed(self.num_classes + 1, self.width, name="labels")(c)
        null = self.param("null", nn.initializers.normal(0.02), (1, self.width))
        has_condition = jnp.any(c != 0.0, axis=-1, keepdims=True)
        vectors = nn.Dense(self.width, use_bias=False, name="vectors")(c.astype(jnp.float32))
        return jnp.where(has_condition, vectors, null)


class Embedding(nn.Module):
    """Embedding of noise level and condition: an MLP of logsnr plus a `ConditionEmbedding`."""

    num_classes: int | None
    width: int

    @nn.compact
    def __call__(self, logsnr: Float[Array, " b"], c: Conditions) -> Float[Array, "b w"]:
        """Return embeddings (b, width)."""
        times = nn.silu(nn.Dense(self.width)(fourier_features(logsnr, 64)))
        condition = ConditionEmbedding(self.num_classes, self.width)(c)
        return nn.Dense(self.width)(times) + condition


class Modulation(nn.Module):
    """Vectors that modulate a layer: linear in silu(embedding), with a kernel that starts at zero.

    This is adaLN-zero (Peebles & Xie, 2022, arXiv 2212.09748).
    """

    count: int
    width: int

    @nn.compact
    def __call__(self, embedding: Float[Array, "b e"]) -> list[Float[Array, "b w"]]:
        """Return ``count`` arrays (b, width)."""
        zeros = nn.initializers.zeros
        out = nn.Dense(self.count * self.width, kernel_init=zeros)(nn.silu(embedding))
        return jnp.split(out, self.count, axis=-1)


def modulated(
    h: Float[Array, "b *n w"], scale: Float[Array, "b w"], shift: Float[Array, "b w"]
) -> Float[Array, "b *n w"]:
    """Return ``(1 + scale) h + shift``, with the same scale and shift at every position.

    scale = shift = 0: h is unchanged.
    """
    return (1.0 + over_positions(scale, h)) * h + over_positions(shift, h)


def over_positions(
    vector: Float[Array, "b w"], like: Float[Array, "b *n w"]
) -> Float[Array, "b *ones w"]:
    """Return a vector per example with axes of length 1, to broadcast over the positions of h."""
    return vector.reshape(len(vector), *(1,) * (like.ndim - 2), -1)


class Attention(nn.Module):
    """Multi-head self-attention among tokens, with softmax in float32."""

    heads: int
    dtype: DType = "float32"
    out_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, h: Float[Array, "b n w"]) -> Float[Array, "b n w"]:
        """Return new tokens (b, n, w) in ``dtype``.

        Raises:
          ValueError: if heads do not divide w.
        """
        width = h.shape[-1]
        if width % self.heads:
            raise ValueError(f"expected heads that divide the width {width}, got {self.heads}")
        shape = (3, self.heads, width // self.heads)
        qkv = nn.DenseGeneral(shape, dtype=jnp.dtype(self.dtype), name="qkv")(h)
        mixed = softmax_attention(*jnp.unstack(qkv, axis=2))
        return nn.DenseGeneral(
            width,
            axis=(-2, -1),
            dtype=jnp.dtype(self.dtype),
            kernel_init=self.out_init,
            name="out",
        )(mixed)


def softmax_attention(
    q: Float[Array, "b n h d"], k: Float[Array, "b n h d"], v: Float[Array, "b n h d"]
) -> Float[Array, "b n h d"]:
    """Return ``softmax(q k' / sqrt(d)) v`` for each of h heads, with softmax in float32.

    Programs lowered for CUDA use cuDNN's fused kernel, which stores no n x n weights, if
    `cudnn_supports` q; all others use XLA's operations. If the kernel may be used, forward-mode
    derivatives and those vmapped over cotangents alone (`jax.jacrev`) raise.
    """
    xla = functools.partial(jax.nn.dot_product_attention, implementation="xla")
    if not cudnn_supports(q.shape, q.dtype):
        return xla(q, k, v)
    return jax.lax.platform_dependent(q, k, v, cuda=_cudnn_attention, default=xla)


_cudnn_attention = functools.partial(jax.nn.dot_product_attention, implementation="cudnn")


def cudnn_supports(shape: tuple[int, ...], dtype: Any) -> bool:
    """Return whether cuDNN's attention of q, k and v (b, n, h, d) can train on all local devices.

    NVIDIA documents training for d <= 128 and more than one token on GPUs from Ampere on (cuDNN
    frontend, "Attention"; cuDNN 9.18, known issues), and jax requires an even n; the remaining
    conditions are jax's, which is asked.
    """
    _, tokens, _, size = shape
    half = dtype in (jnp.float16, jnp.bfloat16)
    trains = tokens % 2 == 0 and size <= 128 and all(map(_is_ampere_or_later, jax.devices()))
    return half and trains and _jax_accepts(shape, dtype)


def _is_ampere_or_later(device: Any) -> bool:
    """Return whether a device has CUDA compute capability 8.0 or more.

    AMD's GPUs have a name in that attribute, other devices do not have the attribute.
    """
    major = getattr(device, "compute_capability", "").split(".")[0]
    return major.isdigit() and int(major) >= 8


def _jax_accepts(shape: tuple[int, ...], dtype: Any) -> bool:
    """Return False if jax has no cuDNN, one too old for the GPU, or cannot train this size."""
    q = jax.ShapeDtypeStruct(shape, dtype)
    try:
        jax.eval_shape(lambda q: jax.vjp(_cudnn_attention, q, q, q)[0], q)
    except RuntimeError:  # no cuDNN; its subclass NotImplementedError for the rest
        return False
    return True


def rematerialised(
    block: type[nn.Module], remat: Remat, *, prevent_cse: bool = True
) -> Callable[..., nn.Module]:
    """Return a block that recomputes activations in the backward pass instead of storing them.

    Values and gradients are the same.

    Args:
      block: a Flax module class.
      remat: what is stored. "none" (no rematerialisation): everything. "activations": results of
        convolutions and of products with parameters; norms, activations and attention, which are
        few FLOPs and most of the memory, are recomputed. "blocks": inputs of blocks only.
      prevent_cse: see `jax.checkpoint`; not needed within a scan.

    Raises:
      ValueError: for another remat.
    """
    if remat not in get_args(Remat):
        raise ValueError(f"expected remat in {get_args(Remat)}, got {remat!r}")
    if remat == "none":
        return block
    policy = _is_product if remat == "activations" else None
    return nn.remat(block, policy=policy, prevent_cse=prevent_cse)


def _is_product(primitive: Any, *args: Any, **params: Any) -> bool:
    """Return whether an operation is a convolution or a product without a batch axis.

    The products of attention have a batch axis.
    """
    if primitive is jax.lax.conv_general_dilated_p:
        return True
    return jax.checkpoint_policies.dots_with_no_batch_dims_saveable(primitive, *args, **params)


def check_images(shape: tuple[int, ...]) -> None:
    """Raise ValueError for a shape that is not (b, h, w, channels)."""
    if len(shape) != 4:
        raise ValueError(f"expected images (b, h, w, channels), got shape {shape}")
