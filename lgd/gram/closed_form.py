"""Tables of omega that are solved for instead of trained: a value for each row, s-bin and t-bin.

Within a bin a one-step loss is a function of one number. For the l2 objective it is a parabola, and
the noise that statistics redraw has mean 0 in it and is left out; for the energy objectives its
least value is found on a grid and refined by Newton's method. Ridge terms pull every bin towards
its neighbours and towards the other rows, where data are few (`lgd.gram.ridge`).
"""

import functools
import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from lgd import omega
from lgd.gram.layout import Layout, Statistics, StatisticsError
from lgd.gram.learned import learned_guidance
from lgd.gram.loss import Examples, example_conditions, examples, prepared, redrawn_rows
from lgd.gram.ridge import minimise
from lgd.objectives import OneStep
from lgd.objectives.forms import SharedForms, shared
from lgd.omega import Guidance, One, Rows
from lgd.types import Params, PRNGKey, Schedule

GRID = (0.0, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.2, 3.2, 4.6, 6.8, 10.0)  # first look, up to omega_max
NEWTON_STEPS = 4
_ONE_ROW = One()
_CHUNK = 4096
_MOST_KEPT = 2**30  # bytes of distances that are kept from one pass to the next


class Solved(NamedTuple):
    """A table ``guidance.params["values"]`` (rows, s, t), with errors and counts of its entries."""

    guidance: Guidance
    standard_errors: Float[np.ndarray, "rows s t"]  # of the unshrunk optimum; inf without data
    counts: Int[np.ndarray, "rows s t"]  # examples by draws of s in each bin


class _Parabola(NamedTuple):
    """Slope and curvature of the loss of every bin at its present value, as sums over examples."""

    slope: Float[np.ndarray, " bins"]
    curvature: Float[np.ndarray, " bins"]
    squared_slope: Float[np.ndarray, " bins"]  # of clusters, for standard errors
    members: Int[np.ndarray, " bins"]


def closed_form(
    statistics: Statistics,
    objective: OneStep,
    *,
    schedule: Schedule,
    rows: Rows = _ONE_ROW,
    num_bins: int = 10,
    omega_max: float = 10.0,
    ridge: float = 0.1,
    num_draws: int = 8,
    seed: int = 0,
) -> Solved:
    """The optimum of a one-step objective in every bin, within [0, omega_max].

    Minimises over the table w::

        sum_b L_b(w_b) + ridge H (sum_neighbours (w_b - w_b')^2 + sum_b (w_b - mean_r w_b)^2) / 2

    where L_b is the loss that falls into bin b, H the mean curvature of all bins, and mean_r the
    mean over rows. A bin without data takes the values around it.

    Args:
      statistics: of examples with one condition each, one direction and no features.
      objective: `objectives.l2()` is solved exactly; others to `NEWTON_STEPS` steps.
      schedule: the forward process of the denoiser.
      rows: which conditions share a row of the table, see `omega.rows`; by default all do.
      num_bins: of s and of t, over the support of the objective.
      omega_max: the largest weight.
      ridge: strength of both ridge terms; 0: every bin by itself.
      num_draws: of s, and of noise where it matters, for every example.
      seed: of these draws.

    Raises:
      StatisticsError: for statistics or settings that do not fit.
      ValueError: for conditions that have no row.
    """
    _check(statistics, ridge, omega_max, num_draws)
    statistics, weights = prepared(statistics, objective, schedule)
    model = omega.BinTable(
        support=objective.support,
        rows=rows,
        num_bins=num_bins,
        init_omega=0.5 * omega_max,
        omega_max=omega_max,
    )
    params = model.init(jax.random.key(seed), example_conditions(statistics))
    shape = params["values"].shape
    bins = _Binned(statistics, weights, objective, schedule, model, params, num_draws, seed)
    if _is_quadratic(objective):
        table, num_steps = np.zeros(shape), 1
    else:
        grid = np.asarray([w for w in GRID if w < omega_max] + [omega_max])
        table, num_steps = bins.least_on(grid).reshape(shape), NEWTON_STEPS
    for _ in range(num_steps):
        at = bins.around(table.ravel())
        slope, curvature = at.slope.reshape(shape), at.curvature.reshape(shape)
        table = minimise(slope, curvature, table, ridge=ridge, upper=omega_max)
    parabola = bins.around(table.ravel())  # slopes at the table itself, for the errors
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.sqrt(parabola.squared_slope) / np.abs(parabola.curvature)
    errors = np.where(parabola.members > 1, errors, np.inf).reshape(shape)
    params |= {"values": jnp.asarray(table, jnp.float32)}
    learned = learned_guidance(
        model, params, statistics, objective, schedule=schedule, start="closed form", history={}
    )
    return Solved(learned, errors, parabola.members.reshape(shape))


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
        params: Params,
        num_draws: int,
        seed: int,
    ) -> None:
        self._statistics, self._weights = statistics, weights
        self._objective, self._schedule = objective, schedule
        self._model, self._params = model, params
        self._data, self._seed, self._num_draws = examples(statistics), seed, num_draws
        self._energy = jnp.asarray(objective.energy, jnp.float32)
        _, self._cluster = np.unique(statistics.source, return_inverse=True)
        self.num_bins = model.rows.count * model.num_bins**2
        numbers = 6 * objective.num_members**2 * num_draws * statistics.size
        self._kept = list(self._drawn()) if 4 * numbers <= _MOST_KEPT else None

    def least_on(self, grid: Float[np.ndarray, " w"]) -> Float[np.ndarray, " bins"]:
        """The value of least loss in every bin; the first value where there are no data."""
        sums = np.zeros((len(grid), self.num_bins))
        for index, bins, forms in self._parts():
            values = jnp.asarray(grid, jnp.float32)
            by_value = _losses(forms, values, self._energy, objective=self._objective.frame)
            for i, losses in enumerate(np.asarray(by_value, np.float64)):
                weighted = self._weights[index] * losses[: len(index)]
                sums[i] += np.bincount(bins, weighted, self.num_bins)
        return np.asarray(grid)[np.argmin(sums, axis=0)]

    def around(self, table: Float[np.ndarray, " bins"]) -> _Parabola:
        """Slopes and curvatures of all bins at the values of a table."""
        curvature = np.zeros(self.num_bins)
        slopes, places, clusters = [], [], []
        for index, bins, forms in self._parts():
            values = np.resize(table[bins], len(forms.cross_terms[0])).astype(np.float32)
            derivatives = _derivatives(forms, values, self._energy, objective=self._objective.frame)
            slope, second = (
                self._weights[index] * np.asarray(derivative, np.float64)[: len(index)]
                for derivative in derivatives
            )
            curvature += np.bincount(bins, second, self.num_bins)
            slopes.append(slope)
            places.append(bins)
            clusters.append(self._cluster[index])
        slope, bins, cluster = map(np.concatenate, (slopes, places, clusters))
        total = np.bincount(bins, slope, self.num_bins)
        count = np.bincount(bins, minlength=self.num_bins)
        centred = slope - (total / np.maximum(count, 1))[bins]
        group, member = np.unique(cluster * self.num_bins + bins, return_inverse=True)
        squares = np.bincount(member, centred) ** 2
        squared = np.bincount(group % self.num_bins, squares, self.num_bins)
        return _Parabola(total, curvature, squared, count)

    def _parts(self) -> Iterable[_Part]:
        """All draws, the same every time; drawn anew where they are too much to keep."""
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
                objective=self._objective.frame,
                layout=self._statistics.layout,
                schedule=self._schedule,
                with_noise=not _is_quadratic(self._objective),
            )
            yield index, self._bin(s, part)[: len(index)], forms

    def _bin(self, s: Float[Array, " g"], batch: Examples) -> Int[np.ndarray, " g"]:
        """The bin of every example: its row, and the nearest centres in s and t."""
        num = self._model.num_bins
        places = []
        for value, centres in zip((s, batch.t), self._model.bin_centres(), strict=True):
            low, high = float(centres[0]), float(centres[-1])
            position = (np.asarray(value) - low) / (high - low) * (num - 1)
            places.append(np.clip(np.rint(position).astype(np.int64), 0, num - 1))
        row = np.asarray(self._model.rows(self._params, batch.c, batch.t), np.int64)
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
    """Squared distances of a batch, as polynomials of one weight an example."""
    rows = redrawn_rows(key, batch, layout, num_particles=objective.num_members)
    if not with_noise:  # of mean 0 in the slope of a parabola, and not in its curvature
        rows = rows._replace(z=jnp.zeros_like(rows.z), eps_target=jnp.zeros_like(rows.eps_target))
    return shared(objective.forms(rows, s=s, t=batch.t, schedule=schedule, churn=energy[2]))


@functools.partial(jax.jit, static_argnames="objective")
def _losses(
    forms: SharedForms,
    values: Float[Array, " w"],
    energy: Float[Array, "3"],
    *,
    objective: OneStep,
) -> Float[Array, "w g"]:
    """The loss of every example at every value."""
    size = len(forms.cross_terms[0])

    def at(value: Float[Array, ""]) -> Float[Array, " g"]:
        return objective.losses(forms, jnp.full(size, value), beta=energy[0], lam=energy[1])

    return jax.lax.map(at, values)


@functools.partial(jax.jit, static_argnames="objective")
def _derivatives(
    forms: SharedForms,
    values: Float[Array, " g"] | Float[np.ndarray, " g"],
    energy: Float[Array, "3"],
    *,
    objective: OneStep,
) -> tuple[Float[Array, " g"], Float[Array, " g"]]:
    """The first and second derivative in omega of the loss of every example."""

    def losses(weights: Float[Array, " g"]) -> Float[Array, " g"]:
        return objective.losses(forms, weights, beta=energy[0], lam=energy[1])

    along = (jnp.ones_like(values),)

    def slopes(weights: Float[Array, " g"]) -> Float[Array, " g"]:
        return jax.jvp(losses, (weights,), along)[1]

    return jax.jvp(slopes, (jnp.asarray(values),), along)


def _is_quadratic(objective: OneStep) -> bool:
    """Whether the loss of an objective is a parabola in omega."""
    return float(objective.energy.beta) == 2.0


def _check(statistics: Statistics, ridge: float, omega_max: float, num_draws: int) -> None:
    """Raise StatisticsError for statistics or settings that do not fit."""
    layout = statistics.layout
    if layout.has_features or len(layout.directions) > 1 or layout.members == "mixed":
        raise StatisticsError(
            "statistics: expected one direction, one condition an example and no features, "
            f"got {layout}"
        )
    if ridge < 0.0 or not omega_max > 0.0 or num_draws < 1:
        raise StatisticsError(
            f"expected ridge >= 0, omega_max > 0, num_draws >= 1, "
            f"got {ridge}, {omega_max}, {num_draws}"
        )
