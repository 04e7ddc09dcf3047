"""Tables of omega solved for, not trained: one value for each class, s-bin and t-bin.

Within a bin a one-step loss is a function of one number. For the l2 objective it is a parabola, and
the noise that statistics redraw has mean 0 in it and is left out; for the energy objectives its
least value is found on a grid and refined by Newton's method. Ridge terms pull every bin towards
its neighbours and towards the other classes, where data are few.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.optimize import lsq_linear

from lgd import omega
from lgd.learn import Guidance
from lgd.statistics.layout import Layout, Statistics, StatisticsError, schedule_fits
from lgd.statistics.loss import (
    Examples,
    OneStep,
    check_fits,
    energy_of,
    examples,
    forms_of,
    frame_of,
    loss_of,
    particles_of,
    redrawn_rows,
    relative_weights,
)
from lgd.types import PRNGKey, Schedule

GRID = (0.0, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.2, 3.2, 4.6, 6.8, 10.0)  # first look, up to omega_max
NEWTON_STEPS = 4
_CHUNK = 4096


class Solved(NamedTuple):
    """A table, ``guidance.params["values"]`` (classes, s, t), and what is known of its entries."""

    guidance: Guidance
    standard_errors: Float[np.ndarray, "classes s t"]  # of the unshrunk optimum; inf without data
    counts: Int[np.ndarray, "classes s t"]  # examples by draws of s in each bin


class _Parabola(NamedTuple):
    """Sums over each bin of a loss around its present value w: weight, slope and curvature."""

    weight: Float[np.ndarray, " bins"]
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
    check_fits(objective, statistics.layout)
    schedule_fits(statistics, schedule)
    _check(statistics, ridge, omega_max, num_draws)
    model = omega.BinTable(
        support=objective.support,
        num_classes=num_classes,
        num_bins=num_bins,
        init_omega=0.5 * omega_max,
        omega_max=omega_max,
    )
    weights = relative_weights(statistics, objective.time_law)
    inside = np.flatnonzero(weights > 0.0)
    statistics, weights = statistics.take(inside), weights[inside]
    shape = (max(num_classes, 1), num_bins, num_bins)
    bins = _Binned(statistics, weights, objective, schedule, model, num_draws, seed)
    is_quadratic = energy_of(objective).beta == 2.0
    table = np.zeros(shape) if is_quadratic else bins.least_on(_grid(omega_max)).reshape(shape)
    for _ in range(1 if is_quadratic else NEWTON_STEPS):
        parabola = bins.around(table.ravel())
        table = _solve(parabola, table, ridge=ridge, omega_max=omega_max)
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.sqrt(parabola.squared_slope) / parabola.curvature
    errors = np.where(parabola.members > 1, errors, np.inf).reshape(shape)
    params = {"values": jnp.asarray(table, jnp.float32)}
    return Solved(Guidance(model, params, "closed form"), errors, parabola.members.reshape(shape))


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
        _, self._cluster = np.unique(statistics.source, return_inverse=True)
        rows = max(model.num_classes, 1)
        self.num_bins = rows * model.num_bins**2

    def least_on(self, grid: Float[np.ndarray, " w"]) -> Float[np.ndarray, " bins"]:
        """The value of least loss of every bin; 0 where there are no data."""
        sums = np.zeros((len(grid), self.num_bins))
        for i, value in enumerate(grid):
            table = np.full(self.num_bins, value)
            for bins, weight, (loss, _, _) in self._draws(table):
                sums[i] += np.bincount(bins, weight * loss, self.num_bins)
        return np.asarray(grid)[np.argmin(sums, axis=0)]

    def around(self, table: Float[np.ndarray, " bins"]) -> _Parabola:
        """Slopes and curvatures at a table."""
        zeros = [np.zeros(self.num_bins) for _ in range(4)]
        weight, slope, curvature, squared = zeros
        count = np.zeros(self.num_bins, np.int64)
        slopes, places = [], []
        for bins, each, (_, first, second) in self._draws(table):
            weight += np.bincount(bins, each, self.num_bins)
            slope += np.bincount(bins, each * first, self.num_bins)
            curvature += np.bincount(bins, each * second, self.num_bins)
            count += np.bincount(bins, minlength=self.num_bins)
            slopes.append(each * first)
            places.append(bins)
        bins = np.concatenate(places)
        with np.errstate(divide="ignore", invalid="ignore"):
            centred = np.concatenate(slopes) - np.nan_to_num(slope / count)[bins]
        cluster = np.tile(self._cluster, self._num_draws)
        group, index = np.unique(cluster * self.num_bins + bins, return_inverse=True)
        squared += np.bincount(
            group % self.num_bins, np.bincount(index, centred) ** 2, self.num_bins
        )
        return _Parabola(weight, slope, curvature, squared, count)

    def _draws(self, table: Float[np.ndarray, " bins"]):  # type: ignore[no-untyped-def]
        """For every draw: the bin of each example, its weight, and (loss, slope, curvature)."""
        values, law = jnp.asarray(table, jnp.float32), self._objective.time_law
        energy = jnp.asarray(energy_of(self._objective), jnp.float32)
        for draw in range(self._num_draws):
            found: list[tuple] = []
            for start in range(0, self._statistics.size, _CHUNK):
                part = self._data.at(slice(start, start + _CHUNK))
                key = jax.random.fold_in(
                    jax.random.fold_in(jax.random.key(self._seed), draw), start
                )
                s_key, rows_key = jax.random.split(key)
                s = law.sample_s(s_key, part.t)
                bins = self._bin(np.asarray(s), np.asarray(part.t), np.asarray(part.c))
                derivatives = _derivatives(
                    rows_key,
                    part,
                    s,
                    values[bins],
                    energy,
                    objective=frame_of(self._objective),
                    layout=self._statistics.layout,
                    schedule=self._schedule,
                    with_noise=float(energy_of(self._objective).beta) != 2.0,
                )
                found.append((bins, *(np.asarray(d, np.float64) for d in derivatives)))
            bins, *each = (np.concatenate(values) for values in zip(*found, strict=True))
            yield bins, self._weights, each

    def _bin(self, s: np.ndarray, t: np.ndarray, c: np.ndarray) -> Int[np.ndarray, " g"]:
        """Nearest centres."""
        num = self._model.num_bins
        places = []
        for value, centres in zip((s, t), self._model.bin_centres(), strict=True):
            low, high = float(centres[0]), float(centres[-1])
            position = (value - low) / (high - low) * (num - 1)
            places.append(np.clip(np.rint(position).astype(np.int64), 0, num - 1))
        row = c.astype(np.int64) if self._model.num_classes else np.zeros(len(s), np.int64)
        return (row * num + places[0]) * num + places[1]


@functools.partial(jax.jit, static_argnames=("objective", "layout", "schedule", "with_noise"))
def _derivatives(
    key: PRNGKey,
    batch: Examples,
    s: Float[Array, " g"],
    values: Float[Array, " g"],
    energy: Float[Array, "3"],
    *,
    objective: OneStep,
    layout: Layout,
    schedule: Schedule,
    with_noise: bool,
) -> tuple[Float[Array, " g"], Float[Array, " g"], Float[Array, " g"]]:
    """Loss, first and second derivative in omega of every example."""
    beta, lam, churn = energy
    m = particles_of(objective)
    rows = redrawn_rows(key, batch, layout, num_particles=m)
    if not with_noise:  # of mean 0 in the slope of a parabola, and not in its curvature
        rows = rows._replace(z=jnp.zeros_like(rows.z), eps_target=jnp.zeros_like(rows.eps_target))
    forms = forms_of(objective, rows, s=s, t=batch.t, schedule=schedule, churn=churn)

    def losses(omega: Float[Array, " g"]) -> Float[Array, " g"]:
        weights = jnp.broadcast_to(omega[:, None, None], (len(omega), m, 1))
        return loss_of(objective, forms, weights, beta=beta, lam=lam)

    along = (jnp.ones_like(values),)

    def slopes(omega: Float[Array, " g"]) -> Float[Array, " g"]:
        return jax.jvp(losses, (omega,), along)[1]

    slope, curvature = jax.jvp(slopes, (values,), along)
    return losses(values), slope, curvature


def _solve(
    parabola: _Parabola, table: Float[np.ndarray, "c s t"], *, ridge: float, omega_max: float
) -> Float[np.ndarray, "c s t"]:
    """The least value of the parabolas plus ridge terms in the box, by bounded least squares."""
    curvature = np.maximum(parabola.curvature, 0.0)
    has_data = curvature > 0.0
    scale = float(np.mean(curvature[has_data])) if has_data.any() else 1.0
    roots = np.sqrt(np.where(has_data, curvature, 0.0))
    goal = table.ravel() - np.where(
        has_data, parabola.slope / np.where(has_data, curvature, 1), 0.0
    )
    blocks, aims = [np.diag(roots)], [roots * goal]
    strength = max(ridge, 1e-9)  # a trace of it keeps bins without data determined
    pulls = np.sqrt(strength * scale) * _pulls(table.shape)
    solved = lsq_linear(
        np.concatenate([*blocks, pulls]),
        np.concatenate([*aims, np.zeros(len(pulls))]),
        bounds=(0.0, omega_max),
        tol=1e-10,
    )
    return solved.x.reshape(table.shape)


def _pulls(shape: tuple[int, ...]) -> Float[np.ndarray, "r bins"]:
    """Rows whose squares are the ridge terms: neighbours in s and t, and the mean of classes."""
    index = np.arange(np.prod(shape)).reshape(shape)
    eye = np.eye(index.size)
    rows = [
        eye[index.take(range(1, size), axis).ravel()]
        - eye[index.take(range(size - 1), axis).ravel()]
        for axis, size in ((1, shape[1]), (2, shape[2]))
    ]
    if shape[0] > 1:
        mean = np.mean([eye[index[k].ravel()] for k in range(shape[0])], axis=0)
        rows += [eye[index[k].ravel()] - mean for k in range(shape[0])]
    return np.concatenate(rows)


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
