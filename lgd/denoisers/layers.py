"""What image networks share: embeddings of noise level and condition, adaptive scales, attention.

Parameters, statistics of norms, softmax and embeddings are float32 whatever ``dtype`` is; it is the
type of convolutions, matrix products and of what flows between layers.
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
    """Sines and cosines of logsnr at ``size / 2`` wavelengths from 1 to 100."""
    wavelengths = jnp.geomspace(1.0, 100.0, size // 2)
    angles = 2.0 * math.pi * logsnr[:, None] / wavelengths[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class ConditionEmbedding(nn.Module):
    """Labels 0 to num_classes, where num_classes means "no condition"; or vectors (b, e).

    With num_classes = None conditions are vectors. One that is all zeros means "no condition" and
    has an embedding of its own: like the label num_classes it is a reserved value, and every dtype
    has it.
    """

    num_classes: int | None
    width: int

    @nn.compact
    def __call__(self, c: Conditions) -> Float[Array, "b w"]:
        """Embeddings; ValueError for labels where vectors are expected, and the reverse."""
        labels = jnp.issubdtype(c.dtype, jnp.integer)
        if labels != (self.num_classes is not None) or c.ndim != (1 if labels else 2):
            expected = "vectors (b, e)" if self.num_classes is None else "integer labels (b,)"
            raise ValueError(f"expected {expected} as conditions, got {c.dtype} {c.shape}")
        if self.num_classes is not None:
            return nn.Embed(self.num_classes + 1, self.width, name="labels")(c)
        null = self.param("null", nn.initializers.normal(0.02), (1, self.width))
        given = jnp.any(c != 0.0, axis=-1, keepdims=True)
        vectors = nn.Dense(self.width, use_bias=False, name="vectors")(c.astype(jnp.float32))
        return jnp.where(given, vectors, null)


class Embedding(nn.Module):
    """Noise level and condition as one vector: an MLP of logsnr plus a `ConditionEmbedding`."""

    num_classes: int | None
    width: int

    @nn.compact
    def __call__(self, logsnr: Float[Array, " b"], c: Conditions) -> Float[Array, "b w"]:
        """The sum of both."""
        times = nn.silu(nn.Dense(self.width)(fourier_features(logsnr, 64)))
        condition = ConditionEmbedding(self.num_classes, self.width)(c)
        return nn.Dense(self.width)(times) + condition


class Modulation(nn.Module):
    """``count`` vectors, linear in silu(embedding) and zero at first (adaLN-zero)."""

    count: int
    width: int

    @nn.compact
    def __call__(self, embedding: Float[Array, "b e"]) -> list[Float[Array, "b w"]]:
        """As many arrays as ``count``."""
        zeros = nn.initializers.zeros
        out = nn.Dense(self.count * self.width, kernel_init=zeros)(nn.silu(embedding))
        return jnp.split(out, self.count, axis=-1)


def modulated(
    h: Float[Array, "b *n w"], scale: Float[Array, "b w"], shift: Float[Array, "b w"]
) -> Float[Array, "b *n w"]:
    """``(1 + scale) h + shift``, the same at every position; 0 and 0: h."""
    return (1.0 + over_positions(scale, h)) * h + over_positions(shift, h)


def over_positions(
    vector: Float[Array, "b w"], like: Float[Array, "b *n w"]
) -> Float[Array, "b *ones w"]:
    """A vector per example as one that broadcasts over the axes between."""
    return vector.reshape(len(vector), *(1,) * (like.ndim - 2), -1)


class Attention(nn.Module):
    """Self-attention among tokens; softmax in float32. ``heads`` divides the width."""

    heads: int
    dtype: DType = "float32"
    out_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, h: Float[Array, "b n w"]) -> Float[Array, "b n w"]:
        """Mixed tokens, in ``dtype``. Raises ValueError where heads do not divide w."""
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
    """``softmax(q k' / sqrt(d)) v`` for each of h heads, softmax in float32.

    Where the program is lowered for CUDA and `cudnn_supports` q: cuDNN's fused kernel, which keeps
    no n x n weights. Elsewhere XLA's operations. Where the kernel may be used there is no
    forward-mode derivative, nor one vmapped over cotangents alone (`jax.jacrev`): both raise.
    """
    xla = functools.partial(jax.nn.dot_product_attention, implementation="xla")
    if not cudnn_supports(q.shape, q.dtype):
        return xla(q, k, v)
    return jax.lax.platform_dependent(q, k, v, cuda=_cudnn_attention, default=xla)


_cudnn_attention = functools.partial(jax.nn.dot_product_attention, implementation="cudnn")


def cudnn_supports(shape: tuple[int, ...], dtype: Any) -> bool:
    """Whether cuDNN's attention of q, k and v (b, n, h, d) runs, and trains, on all devices here.

    For training NVIDIA names d <= 128 on every GPU from Ampere on, and more than one token (cuDNN
    frontend, "Attention"; cuDNN 9.18, known issues); jax wants an even n. The rest is asked of jax.
    """
    _, tokens, _, size = shape
    half = dtype in (jnp.float16, jnp.bfloat16)
    trains = tokens % 2 == 0 and size <= 128 and all(map(_is_ampere_or_later, jax.devices()))
    return half and trains and _jax_accepts(shape, dtype)


def _is_ampere_or_later(device: Any) -> bool:
    """Compute capability 8.0 or more. AMD's GPUs have a name there, other devices nothing."""
    major = getattr(device, "compute_capability", "").split(".")[0]
    return major.isdigit() and int(major) >= 8


def _jax_accepts(shape: tuple[int, ...], dtype: Any) -> bool:
    """False where jax finds no cuDNN, one too old for the GPU, or a size that it does not train."""
    q = jax.ShapeDtypeStruct(shape, dtype)
    try:
        jax.eval_shape(lambda q: jax.vjp(_cudnn_attention, q, q, q)[0], q)
    except RuntimeError:  # no cuDNN; its subclass NotImplementedError for the rest
        return False
    return True


def rematerialised(
    block: type[nn.Module], remat: Remat, *, prevent_cse: bool = True
) -> Callable[..., nn.Module]:
    """A block that recomputes in the backward pass what it does not keep; the same numbers.

    remat: "none" keeps everything; "activations" keeps results of convolutions and of products with
    parameters and recomputes norms, activations and attention, few FLOPs and most of the memory;
    "blocks" keeps a block's inputs. prevent_cse: see `jax.checkpoint`; not needed in a scan.
    Raises ValueError for another remat.
    """
    if remat not in get_args(Remat):
        raise ValueError(f"expected remat in {get_args(Remat)}, got {remat!r}")
    if remat == "none":
        return block
    policy = _is_product if remat == "activations" else None
    return nn.remat(block, policy=policy, prevent_cse=prevent_cse)


def _is_product(primitive: Any, *args: Any, **params: Any) -> bool:
    """A convolution, or a product without a batch axis: attention's have one."""
    if primitive is jax.lax.conv_general_dilated_p:
        return True
    return jax.checkpoint_policies.dots_with_no_batch_dims_saveable(primitive, *args, **params)


def check_images(shape: tuple[int, ...]) -> None:
    """Raise ValueError for what is no batch of images (b, h, w, channels)."""
    if len(shape) != 4:
        raise ValueError(f"expected images (b, h, w, channels), got shape {shape}")
