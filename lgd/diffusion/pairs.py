"""Conditional and unconditional predictions of a denoiser, and those of weaker ones."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from lgd import conditions
from lgd.types import Condition, Denoiser, HasWeaker, MakesPair, Params


def denoise_pair(
    denoiser: Denoiser,
    params: Params,
    x_t: Float[Array, "b *dims"],
    *,
    t: Float[Array, " b"],
    c: Condition,
    rows: Int[Array, " r"] | None = None,
) -> tuple[Float[Array, "b *dims"], Float[Array, "r *dims"]]:
    """``(cond, uncond)`` x0-predictions, in one call of b + r examples where the inputs allow it.

    They have the dtype of x_t, whatever that of the network.

    Args:
      denoiser: one with ``pair`` makes both halves itself.
      params: arrays of the denoiser.
      x_t: noised examples (b, *dims).
      t: times (b,) in [0, 1].
      c: conditions, leaves (b, ...).
      rows: the examples of which uncond is wanted, (r,); None: all of them.

    Raises:
      ValueError: for an unconditional input that is like c, but of another number of examples.
    """
    cond, uncond = _pair(denoiser, params, x_t, t=t, c=c, rows=rows)
    return cond.astype(x_t.dtype), uncond.astype(x_t.dtype)


def _alike(c: Condition, null: Condition) -> bool:
    """Whether two conditions have the same structure, dtypes and shapes but for the batch."""

    def shapes(tree: Condition) -> list:
        return [(leaf.shape[1:], leaf.dtype) for leaf in map(jnp.asarray, jax.tree.leaves(tree))]

    same = bool(jax.tree.structure(c) == jax.tree.structure(null))  # type: ignore[operator]
    return same and shapes(c) == shapes(null)


def predictions(
    denoiser: Denoiser,
    params: Params,
    x_t: Float[Array, "b *dims"],
    *,
    t: Float[Array, " b"],
    c: Condition,
) -> tuple[Float[Array, "b *dims"], tuple[Float[Array, "b *dims"], ...]]:
    """The conditional x0-prediction, and the one that each direction of guidance leads away from.

    The first direction is that of the unconditional prediction; a `denoisers.Directions` has
    further ones, of weaker denoisers (autoguidance; Karras et al., 2024, arXiv 2406.02507).

    Args:
      denoiser: a frozen model.
      params: arrays of the denoiser.
      x_t: noised examples (b, *dims).
      t: times (b,) in [0, 1].
      c: conditions, leaves (b, ...).
    """
    cond, uncond = denoise_pair(denoiser, params, x_t, t=t, c=c)
    return cond, (uncond, *weaker_predictions(denoiser, params, x_t, t=t, c=c))


def weaker_predictions(
    denoiser: Denoiser,
    params: Params,
    x_t: Float[Array, "b *dims"],
    *,
    t: Float[Array, " b"],
    c: Condition,
) -> tuple[Float[Array, "b *dims"], ...]:
    """The predictions of the weaker denoisers of a `denoisers.Directions`; () of any other.

    Args:
      denoiser: a frozen model.
      params: arrays of the denoiser.
      x_t: noised examples (b, *dims).
      t: times (b,) in [0, 1].
      c: conditions, leaves (b, ...).
    """
    if not isinstance(denoiser, HasWeaker):
        return ()
    weaker = denoiser.weaker_predictions(params, x_t, t=t, c=c)
    return tuple(other.astype(x_t.dtype) for other in weaker)


def direction_names(denoiser: Denoiser) -> tuple[str, ...]:
    """Names of the directions of `predictions`, the first of which is "uncond"."""
    return ("uncond", *(denoiser.weaker_names if isinstance(denoiser, HasWeaker) else ()))


def _pair(
    denoiser: Denoiser,
    params: Params,
    x_t: Float[Array, "b *dims"],
    *,
    t: Float[Array, " b"],
    c: Condition,
    rows: Int[Array, " r"] | None,
) -> tuple[Float[Array, "b *dims"], Float[Array, "r *dims"]]:
    """`denoise_pair` in the dtype of the network."""
    if isinstance(denoiser, MakesPair):
        cond, uncond = denoiser.pair(params, x_t, t=t, c=c)
        return cond, uncond if rows is None else uncond[rows]
    wanted = c if rows is None else conditions.take(c, rows)
    null = denoiser.null(wanted)
    some = (x_t, t) if rows is None else (x_t[rows], t[rows])
    if not _alike(c, null):
        cond = denoiser.apply(params, x_t, t=t, c=c)
        return cond, denoiser.apply(params, some[0], t=some[1], c=null)
    if conditions.size(null) != conditions.size(wanted):
        expected = f"{conditions.size(wanted)} conditions"
        raise ValueError(f"null: expected {expected}, got {conditions.size(null)}")

    def together(leaf: Array, other: Array) -> Array:
        if rows is None:  # neighbours, which devices that share the examples need not exchange
            return jnp.stack([leaf, other], axis=1).reshape(-1, *leaf.shape[1:])
        return jnp.concatenate([leaf, other])

    both = jax.tree.map(together, c, null)
    x0_hat = denoiser.apply(params, together(x_t, some[0]), t=together(t, some[1]), c=both)
    if rows is None:
        return x0_hat[::2], x0_hat[1::2]
    return x0_hat[: len(x_t)], x0_hat[len(x_t) :]
