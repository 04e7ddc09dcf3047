"""Weights chosen step by step along the sampler's own path, without gradients."""

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lgd import checks, conditions, omega, sampling
from lgd.data import pipeline
from lgd.data.dataset import FileImages, Split, checked_split
from lgd.diffusion import check_start, checked_denoiser
from lgd.direct import curves, population
from lgd.direct.settings import PathSettings
from lgd.machinery import failures, stopping
from lgd.machinery.arguments import instance, prng_key
from lgd.machinery.failures import NonFiniteError
from lgd.machinery.progress import bar
from lgd.types import Denoiser, Params, PRNGKey

_SHARES = (1.0, 0.5)  # of a move, tried in turn


@failures.memory_advice()
def path_guidance(
    key: PRNGKey,
    denoiser: Denoiser,
    params: Params,
    x0: np.ndarray | Array | FileImages,
    c: Any,
    *,
    stratum: Any = None,
    settings: PathSettings | None = None,
) -> omega.Guidance:
    """Choose omega at every step of the sampler, by walking it once or a few times.

    A population of samples of each stratum walks the grid. At each step the weight is chosen for
    which the stepped population is nearest to real examples noised to s, by their energy distance;
    then the population takes the step. For DDIM steps ``x_s(w) = p + w q``, so that one pair of
    calls serves all weights. Each sample shares its noise with a real example, so that the noise
    of both sets cancels in their difference. There is a weight for each label and step where
    conditions are labels, else one for each step.

    Each population proposes weights. The mean of those so far is kept, stratum by stratum, where
    fresh samples are nearer to real examples by it; else half of the move is tried. So the result
    does no worse than no guidance on samples that did not choose it.

    The objectives that look at noised real data do not see what builds up along the sampler's own
    path; this one does, and costs a few runs of the sampler.

    Args:
      key: source of all randomness.
      denoiser: the frozen model.
      params: its arrays.
      x0: real examples (n, *dims), in memory or in files.
      c: their conditions, leaves (n, ...).
      stratum: which law each example belongs to, integers (n,) from 0; None: the labels, where c
        are labels, and one law of all examples otherwise.
      settings: None: the defaults.

    Returns:
      The guidance: a table over steps. ``history`` holds the distance of fresh samples, mean over
      strata, before and after every sweep.

    Raises:
      ValueError: for arrays or settings that do not fit, and where the check finds what cannot
        work.
      NonFiniteError: where predictions are not finite.
      Stopped: when a signal asked for it.

    >>> import jax, jax.numpy as jnp, numpy as np, lgd
    >>> denoiser = lgd.denoisers.from_function(lambda params, x, t, c: params[c][:, None] + 0.0 * x,
    ...     kind="x0", schedule=lgd.schedules.rectified_flow(), null=2)
    >>> labels = np.arange(64) % 2
    >>> guidance = lgd.path_guidance(  # of a model whose conditional means are half of the data's
    ...     jax.random.key(0), denoiser, jnp.array([0.5, -0.5, 0.0]),
    ...     np.where(labels == 0, 1.0, -1.0)[:, None], labels,
    ...     settings=lgd.direct.PathSettings(num_steps=1, progress=False, check=False))
    >>> round(float(guidance(t=1.0, c=0)), 1)
    1.0
    """
    settings = PathSettings() if settings is None else settings
    instance("settings", settings, PathSettings, "lgd.direct.PathSettings()")
    prng_key("key", key)
    checked_denoiser(denoiser)
    check_start(denoiser, settings.grid)
    split = checked_split(x0, c, stratum)
    if split.stratum is not None:
        conditions.representatives(split.c, split.stratum)  # of every stratum there is one
    if settings.check:
        checks.look(denoiser, params, split, show=settings.progress)
    rows = _rows(split)
    model = omega.StepTable(
        times=settings.grid,
        rows=rows,
        init_omega=min(1.0, 0.5 * settings.omega_max),
        omega_max=settings.omega_max,
        omega_min=settings.omega_min,
    )
    blocks = list(_blocks(split, settings, shared=rows.count == 1))
    seed_key, walk_key = jax.random.split(key)
    seed = int(jax.random.randint(seed_key, (), 0, 2**30))
    found = []
    with bar("choose weights along the path", len(blocks) * settings.num_sweeps,
             show=settings.progress) as advance:  # fmt: skip
        for number, strata in enumerate(blocks):
            batches = pipeline.groups(split, settings.num_particles, seed=seed, groups=strata)
            walk = _Path(denoiser, params, settings, rows.count == 1)
            found.append(_swept(walk, batches, jax.random.fold_in(walk_key, number), advance))
    values = jnp.concatenate([weights.T for weights, _ in found])
    history = {"distance": np.mean([scores for _, scores in found], axis=0).tolist()}
    return omega.Guidance(model, {"values": values}, "path", denoiser.schedule, history)


def _rows(split: Split) -> omega.Rows:
    """A row for every label that is a stratum; one for all other conditions."""
    labels = conditions.labels_of(split.c)
    if labels is None or split.stratum is None or not np.array_equal(labels, split.stratum):
        return omega.One()
    return omega.ByLabel(split.num_strata)


def _blocks(split: Split, settings: PathSettings, *, shared: bool) -> Iterator[np.ndarray]:
    """Numbers of strata that walk together; of weights that all share, as many as fit, evenly."""
    count, most = max(1, split.num_strata), settings.strata_at_once
    if shared:
        yield np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))
        return
    for first in range(0, count, most):
        yield np.arange(first, min(first + most, count))


class _Path(NamedTuple):
    """What walks."""

    denoiser: Denoiser
    params: Params
    settings: PathSettings
    shared: bool  # one weight for all groups


def _swept(
    path: _Path, batches: Any, key: PRNGKey, advance: Any
) -> tuple[Float[np.ndarray, "k r"], list[float]]:
    """Weights of every step and row, and the mean distance before and after every sweep."""
    weights = mean = None
    scores: list[float] = []
    for sweep in range(path.settings.num_sweeps):
        stopping.check("a sweep of the path")
        batch, sweep_key = batches(sweep), jax.random.fold_in(key, sweep)
        walk_key, score_key = jax.random.split(sweep_key)
        proposal = _proposed(path, batch, walk_key)
        mean = proposal if mean is None else mean + (proposal - mean) / (sweep + 1)
        weights = np.zeros_like(mean) if weights is None else weights
        weights, before, after = _accepted(path, batch, weights, mean, score_key)
        scores += [float(before.mean()), float(after.mean())]
        advance(f"{scores[-2]:.4f} -> {scores[-1]:.4f}")
    assert weights is not None
    return weights, scores


def _proposed(path: _Path, batch: Any, key: PRNGKey) -> Float[np.ndarray, "k r"]:
    """The weights that a population chooses on its way."""
    settings, grid = path.settings, path.settings.grid
    c, weights = conditions.flatten(batch.c), jnp.asarray(settings.weights, jnp.float32)
    walkers = population.start(key, path.denoiser, batch.x0, grid[0])
    if settings.policy == "data":
        walkers = walkers._replace(x=walkers.target)
    choice = population.Choice(
        match=settings.match,
        policy=settings.policy,
        residuals=settings.residuals,
        beta=settings.beta,
        churn=settings.churn,
        features=settings.features,
        shared=path.shared,
    )
    chosen = []
    for i, (t, s) in enumerate(itertools.pairwise(grid)):
        walkers, best = population.step(
            path.denoiser, path.params, walkers, c, jnp.float32(t), jnp.float32(s),
            jax.random.fold_in(key, i), weights, choice=choice, is_last=s == 0.0,
        )  # fmt: skip
        chosen.append(best)
    found = np.asarray(jnp.stack(chosen))
    if bad := [t for t, row in zip(grid[:-1], found, strict=True) if not np.isfinite(row).all()]:
        raise NonFiniteError(f"expected finite predictions, got NaN or inf at t = {bad[0]:.3g}")
    return found


def _accepted(
    path: _Path,
    batch: Any,
    weights: Float[np.ndarray, "k r"],
    proposal: Float[np.ndarray, "k r"],
    key: PRNGKey,
) -> tuple[Float[np.ndarray, "k r"], Float[np.ndarray, " r"], Float[np.ndarray, " r"]]:
    """The move to a proposal, or a share of it, where fresh samples come nearer by it.

    Returns the weights, and distances of every row by those of before and by these.
    """
    before = best = _distances(path, batch, weights, key)
    kept = weights
    open_rows = np.ones(len(before), bool)
    for share in _SHARES:
        tried = weights + share * (proposal - weights)
        found = _distances(path, batch, tried, key)
        better = open_rows & (found < best)
        kept, best = np.where(better, tried, kept), np.where(better, found, best)
        open_rows &= ~better
        if not open_rows.any():
            break
    return kept, before, best


def _distances(
    path: _Path, batch: Any, weights: Float[np.ndarray, "k r"], key: PRNGKey
) -> Float[np.ndarray, " r"]:
    """Energy distances of samples by these weights to the real examples of a batch."""
    settings, (g, n) = path.settings, batch.x0.shape[:2]
    of_groups = np.broadcast_to(weights, (len(weights), g))
    x = sampling.sample(
        key,
        path.denoiser,
        path.params,
        conditions.flatten(batch.c),
        shape=batch.x0.shape[2:],
        guidance=jnp.asarray(np.repeat(of_groups, n, axis=1), jnp.float32),
        times=settings.grid,
        churn=settings.churn,
    ).x0
    real = jnp.asarray(batch.x0, jnp.float32).reshape(x.shape)
    if settings.features is not None:
        x, real = (settings.features(points) for points in (x, real))
    found = curves.between(x.reshape(g, n, -1), real.reshape(g, n, -1), beta=settings.beta)
    return np.asarray(jnp.mean(found)[None] if path.shared else found)
