"""Tables that minimise parabolas, one for each entry, plus ridge terms, within bounds."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float

_MOST_CHANGES = 100  # of which values are held at a bound
_LEAST_RIDGE = 1e-9  # keeps bins without data determined


def minimise(
    slope: Float[np.ndarray, "c s t"],
    curvature: Float[np.ndarray, "c s t"],
    table: Float[np.ndarray, "c s t"],
    *,
    ridge: float,
    upper: float,
) -> Float[np.ndarray, "c s t"]:
    """The table w in [0, upper] of least value of parabolas plus ridge terms.

    With ``w0`` the present table, h the curvature and H its mean over the bins that have some::

        sum_b slope_b (w_b - w0_b) + |h_b| (w_b - w0_b)^2 / 2  +  ridge H P(w)
        P(w) = (sum_neighbours (w_b - w_b')^2 + sum_b (w_b - mean_c w_b)^2) / 2

    By the primal-dual active set method: values at a bound are held there while the slope presses
    them against it (Hintermüller, Ito and Kunisch, The primal-dual active set strategy as a
    semismooth Newton method, 2003). A curve that bends down counts as bending up, so that its slope
    still says where to go.

    Args:
      slope: first derivatives at the present table, for each class, s-bin and t-bin.
      curvature: second derivatives; 0 for a bin without data, which takes the values around it.
      table: the present values.
      ridge: strength of the ridge terms; 0: every bin by itself.
      upper: the largest value.
    """
    curvature = np.abs(curvature)
    has_data = curvature > 0.0
    scale = float(np.mean(curvature[has_data])) if has_data.any() else 1.0
    strength = scale * max(ridge, _LEAST_RIDGE)
    target = curvature * table - slope
    diagonal = curvature + strength * penalty_curvature(table.shape)

    def gradient(values: Float[np.ndarray, "c s t"]) -> Float[np.ndarray, "c s t"]:
        return curvature * values + strength * penalty_gradient(values) - target

    values = np.clip(table, 0.0, upper)
    held = np.zeros(table.shape, bool)
    for _ in range(_MOST_CHANGES):
        values = _stationary(gradient, values, ~held, diagonal)
        step = values - gradient(values) / diagonal
        values = np.clip(values, 0.0, upper)
        before, held = held, (step < 0.0) | (step > upper)
        if (held == before).all():
            break
        values = np.where(held, np.where(step < 0.0, 0.0, upper), values)
    return values


def penalty_gradient(values: Float[np.ndarray, "c s t"]) -> Float[np.ndarray, "c s t"]:
    """Gradient of the ridge terms P: away from neighbours in s and t, and from the class mean."""
    gradient = values - values.mean(axis=0)
    for axis in (1, 2):
        gaps = np.diff(values, axis=axis, prepend=np.nan, append=np.nan)
        gaps = np.moveaxis(np.nan_to_num(gaps), axis, 0)
        gradient += np.moveaxis(gaps[:-1] - gaps[1:], 0, axis)
    return gradient


def penalty_curvature(shape: tuple[int, ...]) -> Float[np.ndarray, "c s t"]:
    """Second derivative of the ridge terms P in every value alone."""
    curvature = np.full(shape, 1.0 - 1.0 / shape[0])
    for axis in (1, 2):
        neighbours = np.full(shape[axis], 2.0)
        neighbours[[0, -1]] = 1.0
        curvature += np.expand_dims(neighbours, tuple({0, 1, 2} - {axis}))
    return curvature


def _stationary(
    gradient: Callable[[np.ndarray], np.ndarray],
    values: Float[np.ndarray, "c s t"],
    free: Bool[np.ndarray, "c s t"],
    diagonal: Float[np.ndarray, "c s t"],
) -> Float[np.ndarray, "c s t"]:
    """Values whose gradient is 0 where they are free, by conjugate gradients with the diagonal."""
    from scipy.sparse.linalg import LinearOperator, cg  # slow to import

    roots, base = np.sqrt(diagonal[free]), gradient(np.where(free, 0.0, values))
    if not len(roots):
        return values

    def spread(scaled: np.ndarray) -> np.ndarray:
        whole = np.zeros(values.shape)
        whole[free] = scaled / roots
        return whole

    constant = gradient(np.zeros(values.shape))
    operator = LinearOperator(
        (len(roots), len(roots)),
        matvec=lambda scaled: (gradient(spread(scaled)) - constant)[free] / roots,
        dtype=np.float64,
    )
    solution, _ = cg(operator, -base[free] / roots, x0=values[free] * roots, rtol=1e-12)
    return np.where(free, spread(solution), values)
