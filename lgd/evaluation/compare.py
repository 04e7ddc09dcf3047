"""Comparison of guidance with hand-made schedules that are tuned on the same model and data."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from lgd import checks, conditions, schedules
from lgd.data.dataset import FileImages, Split, checked_split
from lgd.diffusion import check_start, checked_denoiser
from lgd.evaluation import rows
from lgd.evaluation.comparison import GIVEN, UNGUIDED, Comparison, comparisons_of
from lgd.evaluation.draws import Draws, halves
from lgd.evaluation.generator import Generator
from lgd.evaluation.measures import EnergyMeasure, JointMeasure, Measure
from lgd.evaluation.settings import CompareSettings
from lgd.evaluation.tuning import num_candidates
from lgd.guidance import FAMILIES, as_rule, constant
from lgd.machinery.arguments import instance, named, prng_key, wrong
from lgd.machinery.progress import bar
from lgd.types import Denoiser, Params, PRNGKey, Schedule

OPPONENTS = ("constant", "limited_interval", "limited_interval_per_class", "clamp_linear")
TEST_SEED = 1_000_000  # test noise starts so far behind validation noise


def compare(
    key: PRNGKey,
    denoiser: Denoiser,
    params: Params,
    guidances: Mapping[str, Any],
    x0: np.ndarray | Array | FileImages,
    c: Any,
    *,
    stratum: Any = None,
    measures: Mapping[str, Callable[[Split], Measure]] | None = None,
    settings: CompareSettings | None = None,
) -> Comparison:
    """Compare guidance with none and with hand-made schedules, tuned on the same model and data.

    The real examples are split into two halves, stratum by stratum. Hand-made families are tuned by
    the energy distance of their samples to one half, all with the same noise. Then every row is
    measured on the other half, with other noise that all rows share. Do not pass examples that the
    given guidance was learned from: it would be favoured.

    Args:
      key: source of the split and of all noise.
      denoiser: the frozen model.
      params: arrays of the denoiser.
      guidances: what to compare, by name: whatever samplers take as guidance.
      x0: real examples (n, *dims), at least 4 of every stratum.
      c: their conditions, leaves (n, ...). Samples are drawn under conditions of real examples.
      stratum: which law each example belongs to, integers (n,) from 0, each compared by itself;
        None: the labels, where c are labels, and one law of all examples otherwise.
      measures: further measures, by name: functions that make one of real examples, see
        `lgd.evaluation.measures`. Their metrics are called ``name.metric``.
      settings: numbers of samples and seeds, the sampler, what is tuned; None: the defaults.

    Returns:
      The rows with their metrics, and what to conclude of them.

    Raises:
      ValueError: for arrays, names or settings that do not fit, and where the check finds what
        cannot work.
      NonFiniteError, DeviceMemoryError: see `Generator`.

    >>> import jax, jax.numpy as jnp, numpy as np, lgd
    >>> def timid(means, x, t, c):  # of x0 = means[c] + z / 2, by a flow, with means drawn together
    ...     mean = 0.8 * means[c][:, None]
    ...     alpha, sigma = 1.0 - t[:, None], t[:, None]
    ...     gain = 0.25 * alpha / (0.25 * alpha**2 + sigma**2)
    ...     return mean + gain * (x - alpha * mean)
    >>> denoiser = lgd.denoisers.from_function(
    ...     timid, kind="x0", null=2, schedule=lgd.schedules.rectified_flow())
    >>> labels, z = np.arange(400) % 2, np.random.default_rng(0).normal(size=(400, 1))
    >>> comparison = lgd.compare(
    ...     jax.random.key(0), denoiser, jnp.array([1.0, -1.0, 0.0]),
    ...     {"mine": lgd.guidance.constant(0.25)},
    ...     np.where(labels == 0, 1.0, -1.0)[:, None] + z / 2, labels,
    ...     settings=lgd.evaluation.CompareSettings(families=("constant",), progress=False))
    >>> [row["method"] for row in comparison.rows]
    ['unguided', 'constant', 'mine']
    >>> [pair["against"] for pair in comparison.comparisons if pair["mean"] < 0.0]
    ['unguided']
    """
    settings = CompareSettings() if settings is None else settings
    _check_arguments(key, denoiser, guidances, measures, settings)
    split = checked_split(x0, c, stratum)
    families = _opponents(split, settings.family_names)
    _check_names(guidances, families)
    if settings.check:
        checks.look(denoiser, params, split, show=settings.progress)
    split_key, noise_key = jax.random.split(key)
    split_seed, noise_seed = _integer(split_key), _integer(noise_key)
    given = [rows.Row(name, GIVEN, {}, guidance, None) for name, guidance in guidances.items()]
    with _bar(families, denoiser.schedule, len(given), settings) as advance:
        validation, test = halves(split, seed=split_seed, most=settings.num_real)
        further = [rows.NamedMeasure(name, make(test)) for name, make in (measures or {}).items()]
        measure = JointMeasure((EnergyMeasure(test, seed=split_seed + 1), *further))
        generator = _generator(denoiser, params, test, settings)
        tuned = rows.tuned(families, Draws(generator, validation), noise_seed, settings, advance)
        entries = [rows.Row(UNGUIDED, UNGUIDED, {}, constant(0.0), None), *tuned, *given]
        draws, first_seed = Draws(generator, test), noise_seed + TEST_SEED
        runs = {
            entry.method: rows.runs(entry, draws, measure, first_seed, settings, advance)
            for entry in entries
        }
        results = rows.results(entries, runs, draws, settings)
        resampled = {method: rows.resampled_metrics(of_row) for method, of_row in runs.items()}
        curves = rows.curves(entries, draws, settings)
    return Comparison(results, comparisons_of(results, resampled), curves)


def _generator(
    denoiser: Denoiser, params: Params, real: Split, settings: CompareSettings
) -> Generator:
    grid = schedules.uniform_times(settings.num_steps) if settings.times is None else settings.times
    check_start(denoiser, grid)
    return Generator(
        denoiser=denoiser,
        params=params,
        shape=real.x.shape[1:],
        conditions=real.c,
        times=jnp.asarray(grid, jnp.float32),
        churn=settings.churn,
        solver=settings.solver,
        mesh=settings.mesh,
        batch=settings.batch,
    )


def _bar(
    families: Sequence[str], schedule: Schedule, num_given: int, settings: CompareSettings
) -> AbstractContextManager[rows.Advance]:
    """A bar over all runs, of which there are more where a grid grows."""
    candidates = num_candidates(
        families, schedule=schedule, axes=settings.axes, finalists=settings.finalists
    )
    num_rows = 1 + len(families) + num_given
    total = candidates + num_rows * settings.test_seeds
    return bar("compare", total, show=settings.progress)


def _opponents(split: Split, families: Sequence[str] | None) -> tuple[str, ...]:
    """Families that suit the conditions."""
    labels = conditions.labels_of(split.c)
    has_labels = labels is not None and np.array_equal(labels, split.strata)
    need_labels = [name for name, family in FAMILIES.items() if family.is_per_stratum]
    if families is None:
        return tuple(name for name in OPPONENTS if has_labels or name not in need_labels)
    unfit = [name for name in families if not has_labels and name in need_labels]
    if unfit:
        raise ValueError(f"expected families for conditions that are no labels, got {unfit}")
    return tuple(families)


def _check_arguments(key: Any, denoiser: Any, guidances: Any, measures: Any, settings: Any) -> None:
    """Raise ValueError for arguments that are something else."""
    prng_key("key", key)
    checked_denoiser(denoiser)
    instance("settings", settings, CompareSettings, "lgd.evaluation.CompareSettings()")
    for name, guidance in named("guidances", guidances, "guidance").items():
        if isinstance(guidance, type | str):
            raise wrong(f"guidances[{name!r}]", "guidance: a function, a rule, a number", guidance)
        as_rule(guidance)
    expected = "functions that make a measure of real examples"
    for name, make in named("measures", measures or {}, expected).items():
        if not callable(make):
            raise wrong(f"measures[{name!r}]", "a function that makes a measure", make)


def _check_names(guidances: Mapping[str, Any], families: Sequence[str]) -> None:
    if not guidances:
        raise ValueError("expected guidance to compare, got none")
    same = [name for name in guidances if name in (UNGUIDED, *families)]
    if same:
        raise ValueError(f"expected names that no other row has, got {same}")


def _integer(key: PRNGKey) -> int:
    return int(jax.random.randint(key, (), 0, 2**30))
