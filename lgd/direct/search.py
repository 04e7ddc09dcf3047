"""Weights found by drawing samples and measuring them, without gradients."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from lgd import omega, starts
from lgd.direct.settings import SearchSettings
from lgd.guidance import on_grid
from lgd.machinery import stopping
from lgd.machinery.arguments import instance, whole, wrong
from lgd.machinery.failures import NonFiniteError
from lgd.machinery.progress import bar
from lgd.types import Drawing, OmegaFn

Distance = Callable[[Any], Any]  # samples (g, n, *dims) -> (g,)
Weights = Float[np.ndarray, "k g"]
Scores = Float[np.ndarray, " g"]

_MOST = 2.0  # times the farthest point that a parabola may go
_GROWTH, _SHRINKAGE = 1.5, 0.5  # of the step of a knot that moved, or did not


def search_guidance(
    draw: Drawing,
    distance: Distance,
    *,
    num_strata: int,
    accept: Distance | None = None,
    start: Mapping[str, OmegaFn] | omega.Guidance | None = None,
    settings: SearchSettings | None = None,
) -> omega.Guidance:
    """Find omega of every step and stratum by samples and a distance alone.

    A stratum has its own distance, so that one run of the sampler tries a weight for every one of
    them. Weights are ``start + sum_j a_j hat_j(step)`` with hats between a few knots. A sweep goes
    through the knots: with one noise for all, each stratum tries a step to both sides and the
    vertex of the parabola through three distances, and keeps the best. Then new noise is drawn,
    and a stratum keeps its move, or half of it, only where that is nearer too.

    Nothing is asked of the sampler but samples, so any solver serves, and a pipeline in another
    framework; nothing of the distance but numbers, so a Frechet distance does. A sweep takes
    ``3 num_knots + 3`` runs at most, and the start one for each of its schedules.

    Args:
      draw: ``draw(guidance, n, seed=seed)`` returns samples (g, n, *dims), n of each stratum, the
        same noise for the same seed, as `evaluation.Generator` does; guidance is an
        `omega.Guidance` of the number of the stratum.
      distance: samples -> distances (g,) of every stratum, which proposes.
      num_strata: g.
      accept: as distance, and decides on new noise whether a move is kept: by validation data, or
        by features that ``distance`` does not see; None: ``distance`` does.
      start: guidance to improve, or schedules of which every stratum starts from its best; None:
        those of `starts.start_schedules`.
      settings: None: the defaults.

    Returns:
      The guidance: a table over steps, a row for every stratum. ``history`` holds the mean of
      ``accept`` over strata before the first sweep and after every one, each on noise that did not
      propose, and the number of runs of the sampler.

    Raises:
      ValueError: for arguments that do not fit.
      NonFiniteError: where distances of the start are not finite.
      Stopped: when a signal asked for it.

    >>> import jax, jax.numpy as jnp, lgd
    >>> def draw(guidance, n, seed):  # one step, to the guidance's weight plus noise
    ...     weight = guidance.table([1.0, 0.0], jnp.arange(2))[0]
    ...     return weight[:, None] + 0.1 * jax.random.normal(jax.random.key(seed), (2, n))
    >>> guidance = lgd.search_guidance(
    ...     draw, lambda x: (x.mean(1) - jnp.array([0.5, 2.0])) ** 2, num_strata=2,
    ...     settings=lgd.direct.SearchSettings(num_steps=1, progress=False))
    >>> [round(float(guidance(t=1.0, c=c)), 1) for c in (0, 1)]
    [0.5, 2.0]
    """
    settings = SearchSettings() if settings is None else settings
    instance("settings", settings, SearchSettings, "lgd.direct.SearchSettings()")
    for name, function in (("draw", draw), ("distance", distance), ("accept", accept or distance)):
        if not callable(function):
            raise wrong(name, "a function", function)
    whole("num_strata", num_strata, low=1)
    runs = _Runs(draw, distance, accept or distance, num_strata, settings)
    candidates = _candidates(start, runs)
    total = len(candidates) + settings.num_sweeps * runs.per_sweep
    with bar("search weights", total, show=settings.progress) as advance:
        weights = _best_start(candidates, runs, advance)
        weights, history = _swept(weights, runs, advance)
    guidance = runs.guidance(weights)
    return omega.Guidance(guidance.model, guidance.params, "search", None, history)


class _Runs:
    """Runs of the sampler, and what they are measured by."""

    def __init__(
        self,
        draw: Drawing,
        distance: Distance,
        accept: Distance,
        num_strata: int,
        settings: SearchSettings,
    ) -> None:
        self._draw, self._distance, self._accept = draw, distance, accept
        self.num_strata, self.settings, self.count = num_strata, settings, 0
        self.hats = _hats(len(settings.grid) - 1, settings.num_knots)

    @property
    def per_sweep(self) -> int:
        """Runs of a sweep, at most."""
        return 3 * len(self.hats) + 3

    def guidance(self, weights: Weights) -> omega.Guidance:
        """The weights as a table."""
        settings = self.settings
        model = omega.StepTable(
            times=settings.grid,
            rows=omega.ByLabel(self.num_strata),
            init_omega=min(1.0, 0.5 * settings.omega_max),
            omega_max=settings.omega_max,
            omega_min=settings.omega_min,
        )
        return omega.Guidance(model, {"values": jnp.asarray(weights.T, jnp.float32)}, "search")

    def clipped(self, weights: Weights) -> Weights:
        """The weights, moved into their range."""
        return np.clip(weights, self.settings.omega_min, self.settings.omega_max)

    def moves(self, weights: Weights, hat: Any, step: Scores) -> tuple[Scores, Scores]:
        """A step to either side, or two to one side where the range ends on the other."""
        peak = weights[np.argmax(hat)]
        ends_above = peak + step > self.settings.omega_max
        ends_below = ~ends_above & (peak - step < self.settings.omega_min)
        first = np.where(ends_above, -2.0 * step, step)
        return first, np.where(ends_below, 2.0 * step, -step)

    def measure(self, weights: Weights, seed: int) -> "_Measured":
        """Both distances of samples by these weights."""
        x = self._drawn(weights, seed)
        proposes = self._of(self._distance, x, "distance")
        same = self._accept is self._distance
        return _Measured(proposes, proposes if same else self._of(self._accept, x, "accept"))

    def propose(self, weights: Weights, seed: int) -> Scores:
        """The distances that propose."""
        return self._of(self._distance, self._drawn(weights, seed), "distance")

    def _drawn(self, weights: Weights, seed: int) -> Any:
        stopping.check("a search of weights")
        self.count += 1
        return self._draw(self.guidance(weights), self.settings.num_samples, seed=seed)

    def _of(self, distance: Distance, x: Any, name: str) -> Scores:
        """Distances of every stratum; inf where they are not finite."""
        found = np.asarray(distance(x), np.float64)
        if found.shape != (self.num_strata,):
            expected = f"a function that returns a number for each stratum, ({self.num_strata},)"
            raise ValueError(f"{name}: expected {expected}, got {found.shape}")
        return np.where(np.isfinite(found), found, np.inf)


class _Measured(NamedTuple):
    """Distances that propose, and those that decide."""

    proposes: Scores
    decides: Scores


def _hats(num_steps: int, num_knots: int) -> Float[np.ndarray, "j k"]:
    """Piecewise linear functions of the step, 1 at their own knot and 0 at all others."""
    knots = np.linspace(0.0, num_steps - 1.0, min(num_knots, num_steps))
    steps = np.arange(num_steps)
    if len(knots) == 1:
        return np.ones((1, num_steps))
    return np.stack([np.interp(steps, knots, row) for row in np.eye(len(knots))])


def _candidates(start: Any, runs: _Runs) -> list[Weights]:
    """Weights of every schedule that the search may start from."""
    named = starts.start_schedules() if start is None else start
    named = {"start": named} if isinstance(named, omega.Guidance) else named
    if not isinstance(named, Mapping) or not named:
        raise wrong("start", "guidance, or omega functions by name", start)
    times, c = jnp.asarray(runs.settings.grid, jnp.float32), jnp.arange(runs.num_strata)
    tables = [np.asarray(on_grid(each, times, c), np.float64) for each in named.values()]
    return [runs.clipped(table) for table in tables]


def _best_start(candidates: list[Weights], runs: _Runs, advance: Any) -> Weights:
    """The weights of the best candidate of every stratum, all by the same noise."""
    if len(candidates) == 1:
        return candidates[0]
    found = []
    for weights in candidates:
        found.append(runs.propose(weights, runs.settings.seed))
        advance("start")
    scores = np.stack(found)
    if not np.isfinite(scores.min(axis=0)).all():
        raise NonFiniteError("expected finite distances, got NaN or inf from every start")
    return _best_of(candidates, np.argmin(scores, axis=0))


def _swept(weights: Weights, runs: _Runs, advance: Any) -> tuple[Weights, dict[str, Any]]:
    """The weights after all sweeps, and the history."""
    settings, seed = runs.settings, runs.settings.seed + 1
    steps = settings.step * np.ones((len(runs.hats), runs.num_strata))
    steps *= np.maximum(1.0, weights.mean(axis=0))
    at = runs.measure(weights, seed)
    if not np.isfinite(at.proposes).all():
        raise NonFiniteError("expected finite distances, got NaN or inf at the start")
    distances = [float(at.decides.mean())]
    for _ in range(settings.num_sweeps):
        proposal = _proposed(weights, at.proposes, steps, runs, seed, advance)
        seed += 1
        weights, at = _decided(weights, proposal, runs, seed, advance)
        distances.append(float(at.decides.mean()))
    return weights, {"distance": distances, "runs": runs.count}


def _proposed(
    weights: Weights,
    at: Scores,
    steps: Float[np.ndarray, "j g"],
    runs: _Runs,
    seed: int,
    advance: Any,
) -> Weights:
    """The weights after one step along every knot; ``steps`` grow or shrink by what is found.

    Args:
      weights: where the sweep starts.
      at: its distances.
      steps: of every knot and stratum.
      runs: of the sampler.
      seed: of the noise of the sweep.
      advance: called after every run.
    """
    for hat, step in zip(runs.hats, steps, strict=True):

        def tried(move: Scores, hat: Any = hat, weights: Weights = weights) -> tuple[Any, Scores]:
            moved = runs.clipped(weights + hat[:, None] * move)
            found = runs.propose(moved, seed)
            advance("")
            return moved, found

        moves = runs.moves(weights, hat, step)
        points = [(weights, at), *map(tried, moves)]
        values = [found for _, found in points]
        points.append(tried(_vertex((values[0], values[1], values[2]), *moves)))
        found = np.stack([found for _, found in points])
        best = np.argmin(found, axis=0)
        weights, at = _best_of([moved for moved, _ in points], best), found.min(axis=0)
        step *= np.choose(best, (_SHRINKAGE, _GROWTH, _GROWTH, 1.0))  # in place
    return weights


def _best_of(tables: list[Weights], best: Int[np.ndarray, " g"]) -> Weights:
    """Of every stratum the column of its best table."""
    return np.stack([tables[row][:, column] for column, row in enumerate(best)], axis=1)


def _vertex(values: tuple[Scores, Scores, Scores], a: Scores, b: Scores) -> Scores:
    """Where the parabola through values at 0, a and b is least; else beyond the better of a, b."""
    at, first, second = values
    reach = _MOST * np.maximum(abs(a), abs(b))
    with np.errstate(invalid="ignore", divide="ignore"):
        slopes = (first - at) / a, (second - at) / b
        bend = (slopes[1] - slopes[0]) / (b - a)
        vertex = 0.5 * (a - slopes[0] / bend)
    good = np.isfinite(vertex) & (bend > 0.0)
    downhill = np.where(first < second, a, b) * _MOST
    return np.where(good, np.clip(vertex, -reach, reach), downhill)


def _decided(
    weights: Weights, proposal: Weights, runs: _Runs, seed: int, advance: Any
) -> tuple[Weights, _Measured]:
    """The proposal, half of the move, or the weights as they were, by what new noise says."""
    best = runs.measure(weights, seed)
    kept, open_strata = weights, np.ones(runs.num_strata, bool)
    advance(f"distance {best.decides.mean():.4g}")
    for share in (1.0, 0.5):
        tried = weights + share * (proposal - weights)
        found = runs.measure(tried, seed)
        advance(f"distance {found.decides.mean():.4g}")
        better = open_strata & (found.decides < best.decides)
        kept = np.where(better, tried, kept)
        best = _Measured(
            np.where(better, found.proposes, best.proposes),
            np.where(better, found.decides, best.decides),
        )
        open_strata &= ~better
        if not open_strata.any():
            break
    return kept, best
