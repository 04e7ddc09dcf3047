"""Tables of omega solved for, not trained: one value for each class, s-bin and t-bin.

Within a bin a one-step loss is a function of one number. For the l2 objective it is a parabola, and
the noise that statistics redraw has mean 0 in it and is left out; for the energy objectives its
least value is found on a grid and refined by Newton's method. Ridge terms pull every bin towards
its neighbours and towards the other classes, where data are few.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.sparse.linalg import LinearOperator, cg

from lgd import omega
from lgd.gram.layout import Layout, Statistics, StatisticsError
from lgd.gram.loss import (
    Examples,
    OneStep,
    energy_of,
    examples,
    forms_of,
    frame_of,
    loss_of,
    particles_of,
    prepared,
    redrawn_rows,
)
from lgd.objectives.forms import SharedForms, shared
from lgd.omega import Guidance
from lgd.types import PRNGKey, Schedule

GRID = (0.0, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.2, 3.2, 4.6, 6.8, 10.0)  # first look, up to omega_max
NEWTON_STEPS = 4
_CHUNK = 4096
_MOST_KEPT = 2**30  # bytes of distances that are kept from one pass to the next
_MOST_CHANGES = 100  # of which values are held at a bound


class Solved(NamedTuple):
    """A table, ``guidance.params["values"]`` (classes, s, t), and what is known of its entries."""

    guidance: Guidance
    standard_errors: Float[np.ndarray, "classes s t"]  # of the unshrunk optimum; inf without data
    counts: Int[np.ndarray, "classes s t"]  # examples by draws of s in each bin


class _Parabola(NamedTuple):
    """Sums over each bin of a loss around its present value: slope and curvature."""

    slope: Float[np.ndarray, " bins"]
    curvature: Float[np.ndarray, " bins"]
    squared_slope: Float[np.ndarray, " bins"]  # of clusters, for standard errors
    members: Int[np.ndarray, " bins"]


def closed_form(
    statistics: Statistics,
    objective: OneStep,
    *,
    schedule: Schedule,
    num_classes: int = 0,
    num_bins: int = 10,
    omega_max: float = 10.0,
    ridge: float = 0.1,
    num_draws: int = 8,
    seed: int = 0,
) -> Solved:
    """The optimum of a one-step objective in every bin, within [0, omega_max].

    Minimises over the table w::

        sum_b L_b(w_b) + ridge H (sum_neighbours (w_b - w_b')^2 + sum_b (w_b - mean_c w_b)^2) / 2

    where L_b is the loss that falls into bin b and H the mean curvature of all bins. A bin without
    data takes the values around it.

    Args:
      statistics: of class-conditional examples with one omega each (no features, one direction).
      objective: `objectives.l2()` is solved exactly; others to `NEWTON_STEPS` steps.
      schedule: the denoiser's.
      num_classes: 0: one table for all classes.
      num_bins: of s and of t, over the support of the objective.
      omega_max: largest weight.
      ridge: strength of both ridge terms; 0: every bin by itself.
      num_draws: of s, and of noise where it matters, for every example.
      seed: of these draws.

    Raises:
      StatisticsError: for statistics or settings that do not fit.
    """
    _check(statistics, ridge, omega_max, num_draws)
    statistics, weights = prepared(statistics, objective, schedule)
    model = omega.BinTable(
        support=objective.support,
        num_classes=num_classes,
        num_bins=num_bins,
        init_omega=0.5 * omega_max,
        omega_max=omega_max,
    )
    shape = (max(num_classes, 1), num_bins, num_bins)
    bins = _Binned(statistics, weights, objective, schedule, model, num_draws, seed)
    if _is_quadratic(objective):
        table, num_steps = np.zeros(shape), 1
    else:
        table, num_steps = bins.least_on(_grid(omega_max)).reshape(shape), NEWTON_STEPS
    for _ in range(num_steps):
        parabola = bins.around(table.ravel())
        table = _solve(parabola, table, ridge=ridge, omega_max=omega_max)
    parabola = bins.around(table.ravel())  # where slopes owe nothing to the way there
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.sqrt(parabola.squared_slope) / np.abs(parabola.curvature)
    errors = np.where(parabola.members > 1, errors, np.inf).reshape(shape)
    params = {"values": jnp.asarray(table, jnp.float32)}
    return Solved(Guidance(model, params, "closed form"), errors, parabola.members.reshape(shape))


_Part = tuple[Int[np.ndarray, " g"], Int[np.ndarray, " g"], SharedForms]


class _Binned:
    """Losses of statistics, their slopes and curvatures in omega, summed by bin."""

    def __init__(
        self,
        statistics: Statistics,
        weights: Float[np.ndarray, " n"],
        objective: OneStep,
        schedule: Schedule,
        model: omega.BinTable,
        num_draws: int,
        seed: int,
    ) -> None:
        self._statistics, self._weights = statistics, weights
        self._objective, self._schedule, self._model = objective, schedule, model
        self._data, self._seed, self._num_draws = examples(statistics), seed, num_draws
        self._energy = jnp.asarray(energy_of(objective), jnp.float32)
        _, self._cluster = np.unique(statistics.source, return_inverse=True)
        self.num_bins = max(model.num_classes, 1) * model.num_bins**2
        numbers = 6 * particles_of(objective) ** 2 * num_draws * statistics.size
        self._kept = list(self._drawn()) if 4 * numbers <= _MOST_KEPT else None

    def least_on(self, grid: Float[np.ndarray, " w"]) -> Float[np.ndarray, " bins"]:
        """The value of least loss of every bin; the first where there are no data."""
        sums = np.zeros((len(grid), self.num_bins))
        for index, bins, forms in self._parts():
            values = jnp.asarray(grid, jnp.float32)
            found = _losses(forms, values, self._energy, objective=frame_of(self._objective))
            for i, losses in enumerate(np.asarray(found, np.float64)):
                weighted = self._weights[index] * losses[: len(index)]
                sums[i] += np.bincount(bins, weighted, self.num_bins)
        return np.asarray(grid)[np.argmin(sums, axis=0)]

    def around(self, table: Float[np.ndarray, " bins"]) -> _Parabola:
        """Slopes and curvatures at a table."""
        curvature = np.zeros(self.num_bins)
        slopes, places, clusters = [], [], []
        for index, bins, forms in self._parts():
            values = np.resize(table[bins], len(forms.cross_terms[0])).astype(np.float32)
            found = _derivatives(forms, values, self._energy, objective=frame_of(self._objective))
            slope, second = (
                self._weights[index] * np.asarray(each, np.float64)[: len(index)] for each in found
            )
            curvature += np.bincount(bins, second, self.num_bins)
            slopes.append(slope)
            places.append(bins)
            clusters.append(self._cluster[index])
        slope, bins, cluster = (np.concatenate(each) for each in (slopes, places, clusters))
        total = np.bincount(bins, slope, self.num_bins)
        count = np.bincount(bins, minlength=self.num_bins)
        centred = slope - (total / np.maximum(count, 1))[bins]
        group, member = np.unique(cluster * self.num_bins + bins, return_inverse=True)
        squares = np.bincount(member, centred) ** 2
        squared = np.bincount(group % self.num_bins, squares, self.num_bins)
        return _Parabola(total, curvature, squared, count)

    def _parts(self) -> Iterable[_Part]:
        """What is drawn, the same every time; drawn anew where it is too much to keep."""
        return self._drawn() if self._kept is None else self._kept

    def _drawn(self) -> Iterator[_Part]:
        """Every draw of every chunk: its examples, their bins, and their distances.

        Chunks have one size, so that they share a program; distances that fill up the last chunk
        come after those of the examples named.
        """
        size, law = self._statistics.size, self._objective.time_law
        chunk = min(size, _CHUNK)
        for draw, start in itertools.product(range(self._num_draws), range(0, size, chunk)):
            index = np.arange(start, start + chunk)
            part = self._data.at(jnp.asarray(np.minimum(index, size - 1)))
            index = index[index < size]
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(self._seed), draw), start)
            s_key, rows_key = jax.random.split(key)
            s = law.sample_s(s_key, part.t)
            forms = _forms(
                rows_key,
                part,
                s,
                self._energy,
                objective=frame_of(self._objective),
                layout=self._statistics.layout,
                schedule=self._schedule,
                with_noise=not _is_quadratic(self._objective),
            )
            yield index, self._bin(s, part)[: len(index)], forms

    def _bin(self, s: Float[Array, " g"], batch: Examples) -> Int[np.ndarray, " g"]:
        """Nearest centres."""
        num = self._model.num_bins
        places = []
        for value, centres in zip((s, batch.t), self._model.bin_centres(), strict=True):
            low, high = float(centres[0]), float(centres[-1])
            position = (np.asarray(value) - low) / (high - low) * (num - 1)
            places.append(np.clip(np.rint(position).astype(np.int64), 0, num - 1))
        row = np.asarray(batch.c, np.int64) if self._model.num_classes else 0
        return (row * num + places[0]) * num + places[1]


@functools.partial(jax.jit, static_argnames=("objective", "layout", "schedule", "with_noise"))
def _forms(
    key: PRNGKey,
    batch: Examples,
    s: Float[Array, " g"],
    energy: Float[Array, "3"],
    *,
    objective: OneStep,
    layout: Layout,
    schedule: Schedule,
    with_noise: bool,
) -> SharedForms:
    rows = redrawn_rows(key, batch, layout, num_particles=particles_of(objective))
    if not with_noise:  # of mean 0 in the slope of a parabola, and not in its curvature
        rows = rows._replace(z=jnp.zeros_like(rows.z), eps_target=jnp.zeros_like(rows.eps_target))
    forms = forms_of(objective, rows, s=s, t=batch.t, schedule=schedule, churn=energy[2])
    return shared(forms)


@functools.partial(jax.jit, static_argnames="objective")
def _losses(
    forms: SharedForms,
    values: Float[Array, " w"],
    energy: Float[Array, "3"],
    *,
    objective: OneStep,
) -> Float[Array, "w g"]:
    """Loss of every example at every value."""
    size = len(forms.cross_terms[0])

    def at(value: Float[Array, ""]) -> Float[Array, " g"]:
        weights = jnp.full(size, value)
        return loss_of(objective, forms, weights, beta=energy[0], lam=energy[1])

    return jax.lax.map(at, values)


@functools.partial(jax.jit, static_argnames="objective")
def _derivatives(
    forms: SharedForms,
    values: Float[Array, " g"] | Float[np.ndarray, " g"],
    energy: Float[Array, "3"],
    *,
    objective: OneStep,
) -> tuple[Float[Array, " g"], Float[Array, " g"]]:
    """First and second derivative in omega of the loss of every example."""

    def losses(weights: Float[Array, " g"]) -> Float[Array, " g"]:
        return loss_of(objective, forms, weights, beta=energy[0], lam=energy[1])

    along = (jnp.ones_like(values),)

    def slopes(weights: Float[Array, " g"]) -> Float[Array, " g"]:
        return jax.jvp(losses, (weights,), along)[1]

    return jax.jvp(slopes, (jnp.asarray(values),), along)


def _solve(
    parabola: _Parabola, table: Float[np.ndarray, "c s t"], *, ridge: float, omega_max: float
) -> Float[np.ndarray, "c s t"]:
    """The least value of the parabolas plus ridge terms in the box.

    By the primal-dual active set method: values at a bound are held there while the slope presses
    them against it (Hintermüller et al., 2003). Where a curve bends down it counts as bending up,
    so that its slope still says where to go.
    """
    curvature = np.abs(parabola.curvature).reshape(table.shape)
    has_data = curvature > 0.0
    scale = float(np.mean(curvature[has_data])) if has_data.any() else 1.0
    strength = scale * max(ridge, 1e-9)  # a trace of it keeps bins without data determined
    target = curvature * table - parabola.slope.reshape(table.shape)
    diagonal = curvature + strength * _pull_diagonal(table.shape)

    def gradient(values: Float[np.ndarray, "c s t"]) -> Float[np.ndarray, "c s t"]:
        return curvature * values + strength * _pull(values) - target

    values = np.clip(table, 0.0, omega_max)
    held = np.zeros(table.shape, bool)
    for _ in range(_MOST_CHANGES):
        values = _solve_free(gradient, values, ~held, diagonal)
        step = values - gradient(values) / diagonal
        values = np.clip(values, 0.0, omega_max)
        before, held = held, (step < 0.0) | (step > omega_max)
        if (held == before).all():
            break
        values = np.where(held, np.where(step < 0.0, 0.0, omega_max), values)
    return values


def _solve_free(
    gradient: Callable[[np.ndarray], np.ndarray],
    values: Float[np.ndarray, "c s t"],
    free: Bool[np.ndarray, "c s t"],
    diagonal: Float[np.ndarray, "c s t"],
) -> Float[np.ndarray, "c s t"]:
    """Make the gradient 0 at the free values, by conjugate gradients scaled by the diagonal."""
    roots, base = np.sqrt(diagonal[free]), gradient(np.where(free, 0.0, values))

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
    if not len(roots):
        return values
    solved, _ = cg(operator, -base[free] / roots, x0=values[free] * roots, rtol=1e-12)
    return np.where(free, spread(solved), values)


def _pull(values: Float[np.ndarray, "c s t"]) -> Float[np.ndarray, "c s t"]:
    """Gradient of the ridge terms: from neighbours in s and t, and from the mean of classes."""
    pull = values - values.mean(axis=0)
    for axis in (1, 2):
        gaps = np.diff(values, axis=axis, prepend=np.nan, append=np.nan)
        gaps = np.moveaxis(np.nan_to_num(gaps), axis, 0)
        pull += np.moveaxis(gaps[:-1] - gaps[1:], 0, axis)
    return pull


def _pull_diagonal(shape: tuple[int, ...]) -> Float[np.ndarray, "c s t"]:
    """How steeply each value's own gradient rises."""
    steepness = np.full(shape, 1.0 - 1.0 / shape[0])
    for axis in (1, 2):
        neighbours = np.full(shape[axis], 2.0)
        neighbours[[0, -1]] = 1.0
        steepness += np.expand_dims(neighbours, tuple({0, 1, 2} - {axis}))
    return steepness


def _is_quadratic(objective: OneStep) -> bool:
    """Whether its loss is a parabola in omega."""
    return float(energy_of(objective).beta) == 2.0


def _grid(omega_max: float) -> Float[np.ndarray, " w"]:
    return np.asarray([w for w in GRID if w < omega_max] + [omega_max])


def _check(statistics: Statistics, ridge: float, omega_max: float, num_draws: int) -> None:
    layout = statistics.layout
    if layout.has_features or len(layout.directions) > 1 or layout.members == "mixed":
        raise StatisticsError(
            "statistics: expected one direction, one class an example and no features, "
            f"got {layout}"
        )
    if ridge < 0.0 or not omega_max > 0.0 or num_draws < 1:
        raise StatisticsError(
            f"expected ridge >= 0, omega_max > 0, num_draws >= 1, "
            f"got {ridge}, {omega_max}, {num_draws}"
        )
