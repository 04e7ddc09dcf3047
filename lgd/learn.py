"""Learn guidance for a frozen model in one call."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from lgd import checks, conditions, omega, schedules, starts, training
from lgd.data import pipeline
from lgd.data.dataset import FileImages, Split, checked_split, fingerprint
from lgd.denoisers import probe
from lgd.diffusion import direction_names, t_max
from lgd.machinery import digests, failures, parallel, processes
from lgd.machinery.progress import bar, phase
from lgd.objectives import Objective, Trajectory
from lgd.training import Batches, Loss, Optimizer, Trainer
from lgd.types import Batch, Condition, Denoiser, OmegaFn, OmegaModel, Params, PRNGKey

NUM_PROBES = 64  # examples on which a denoiser is examined
NUM_CONDITIONS = 64  # of examples without strata, for a model to see what conditions are
PROBE_TIMES = tuple(np.linspace(1.0, 0.0, 101)[:-1].tolist())  # where NaN is looked for
_FIRST = range(starts.START_BATCHES)  # batches that starts are compared on
_STEPS = 200  # of a training whose optimizer is not given


@failures.memory_advice()
def learn_guidance(
    key: PRNGKey,
    denoiser: Denoiser,
    denoiser_params: Params,
    x0: np.ndarray | Array | FileImages,
    c: Any,
    *,
    stratum: Any = None,
    objective: Objective | None = None,
    model: omega.LearnedModel | None = None,
    start: Mapping[str, OmegaFn] | omega.Guidance | None = None,
    trainer: Trainer | None = None,
) -> omega.Guidance:
    """Learn omega for a frozen conditional denoiser from real examples.

    By default a table over label and step, or a network for other conditions and for more than a
    hundred labels, trained by `Trajectory` over 25 uniform DDIM steps: the objective to trust
    without knowing whether guidance helps. Training starts from the best of a few hand-made
    schedules under the objective itself.

    Args:
      key: source of all randomness.
      denoiser: the frozen model; a `denoisers.Directions` has further directions to learn.
      denoiser_params: arrays of the denoiser.
      x0: real examples (n, *dims), in memory or in files, see `lgd.data`.
      c: their conditions, leaves (n, ...): integer labels (n,), vectors, tokens with a mask, a dict
        of these.
      stratum: which law each example belongs to, integers (n,) from 0; None: the labels, where c
        are labels, and one law of all examples otherwise.
      objective: what to minimise, see `lgd.objectives`.
      model: what to learn; None: what suits the objective and c, for every direction.
      start: schedules to choose the start from, by name, `starts.start_schedules` by default; or
        guidance learned before, whose model and parameters training starts from, for instance with
        a smaller reward weight; ``model`` is then left out.
      trainer: optimizer, batch size, devices, checkpoints, reports, and whether the model is looked
        at first. By default 200 steps at 0.1 for a table, 300 at 3e-3 for a network.

    Returns:
      The guidance, with the loss over training in ``history``.

    Raises:
      ValueError: when arrays, conditions or settings do not fit, the check finds what cannot work,
        or the store holds a training of other data or settings, of another key or denoiser.
      NonFiniteError: see `lgd.training.fit`; names the times at which the denoiser is not finite.
      Stopped, DeviceMemoryError: see `lgd.training.fit`.

    >>> import jax, numpy as np, lgd
    >>> denoiser = lgd.denoisers.from_function(lambda params, x, t, c: params[c][:, None] + 0.0 * x,
    ...     kind="x0", schedule=lgd.schedules.rectified_flow(), null=2)
    >>> labels = np.arange(64) % 2
    >>> guidance = lgd.learn_guidance(
    ...     jax.random.key(0), denoiser, jax.numpy.array([1.0, -1.0, 0.0]),
    ...     np.where(labels == 0, 1.0, -1.0)[:, None], labels,
    ...     objective=lgd.objectives.SelfConsistency(),
    ...     start={"weak": lgd.guidance.constant(0.1)},
    ...     trainer=lgd.training.Trainer(
    ...         optimizer=lgd.training.Optimizer(num_steps=2), progress=False))
    >>> guidance(t=0.5, c=1).shape
    ()
    """
    checks.check_arguments(key, denoiser, objective, model, start, trainer)
    (trainer, mesh), split = _with_mesh(trainer), checked_split(x0, c, stratum)
    data_key, start_key, init_key, fit_key = jax.random.split(key, 4)
    objective = default_objective() if objective is None else objective
    begins = start.params if isinstance(start, omega.Guidance) else start
    given = (denoiser_params, objective, denoiser, begins)
    with phase("look at the model", show=trainer.progress):
        checks.check_use(denoiser, denoiser_params, split, objective, probe=trainer.check)
    objective, seen = _prepared(objective, split, trainer)
    batches, batch_axis = _batches(objective, seen, trainer.batch_size, mesh, data_key)
    denoiser, denoiser_params = _placed(denoiser, denoiser_params, mesh)
    blaming = _blaming(denoiser, denoiser_params, split, objective)
    with blaming, pipeline.reading_ahead(batches) as batches:
        if isinstance(start, omega.Guidance):
            begun = start
        else:
            some = [parallel.place_batch(batches(i), mesh, batch_axis) for i in _FIRST]
            begun = _started(
                (start_key, init_key), objective, model, denoiser, denoiser_params,
                _example_conditions(split), some, start, trainer,
            )  # fmt: skip
        with _reporting(trainer, begun.model, objective) as (reporting, history):
            provenance = _source(key, split, objective, reporting, *given, begun.model)
            state = training.fit(
                fit_key,
                omega_loss(objective, begun.model, denoiser),
                begun.params,
                frozen=denoiser_params,
                batches=batches,
                trainer=reporting,
                project=begun.model.project,
                batch_axis=batch_axis,
                fingerprint=provenance["training"],
            )
    ema = jax.device_put(processes.to_host(state.ema))
    return omega.Guidance(begun.model, ema, begun.start, denoiser.schedule, history, provenance)


def omega_loss(objective: Objective, model: OmegaModel, denoiser: Denoiser) -> Loss:
    """The loss of an objective as a function of the parameters of a model."""

    def loss(
        params: Params, denoiser_params: Params, batch: Batch, key: PRNGKey
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        return objective(key, omega.bind(model, params), denoiser, denoiser_params, batch)

    return loss


def default_objective() -> Trajectory:
    """`Trajectory` over 25 uniform steps."""
    return Trajectory(times=tuple(np.asarray(schedules.uniform_times(25)).tolist()))


def default_optimizer(model: omega.LearnedModel) -> Optimizer:
    """Settings that suit a model."""
    return Optimizer(
        num_steps=model.default_num_steps,
        learning_rate=model.default_learning_rate,
        ema_decay=0.98,
    )


def _started(
    keys: tuple[PRNGKey, PRNGKey],
    objective: Objective,
    model: omega.LearnedModel | None,
    denoiser: Denoiser,
    denoiser_params: Params,
    c: Condition,
    batches: list[Batch],
    named: Mapping[str, OmegaFn] | None,
    trainer: Trainer,
) -> omega.Guidance:
    """The model at the best of some schedules, all compared as they stand in one table."""
    if model is None:
        model = objective.default_model(denoiser.schedule, c)
        model = omega.repeated(model, len(direction_names(denoiser)))
    named = model.start_candidates(starts.start_schedules()) if named is None else named
    name, table = next(iter(named)), model.tabulated()
    if len(named) > 1 and table is not None:
        name = starts.best_schedule(
            keys[0],
            omega_loss(objective, table, denoiser),
            denoiser_params,
            batches,
            {name: table.started(keys[0], omega_fn, c)[1] for name, omega_fn in named.items()},
            mesh=_with_mesh(trainer)[1],
            progress=trainer.progress,
        )
    model, params = model.started(keys[1], named[name], c)
    return omega.Guidance(model, params, name)


def _example_conditions(split: Split) -> Condition:
    """The condition of every stratum, or of some examples where there are no strata."""
    some = conditions.take(split.c, slice(NUM_CONDITIONS))
    if split.stratum is not None:
        some = conditions.representatives(split.c, split.stratum)
    return jax.tree.map(jax.numpy.asarray, some)


@contextlib.contextmanager
def _reporting(
    trainer: Trainer, model: omega.LearnedModel, objective: Objective
) -> Iterator[tuple[Trainer, dict[str, list[float]]]]:
    """The trainer with a bar, and the loss over the steps that it logs."""
    optimizer = trainer.optimizer or default_optimizer(model)
    label = f"learn omega: {type(objective).__name__}"
    history: dict[str, list[float]] = {"step": [], "loss": []}
    with bar(label, optimizer.num_steps, show=trainer.progress) as advance:

        def on_step(step: int, ema: Params) -> None:
            advance("")
            if trainer.on_step is not None:
                trainer.on_step(step, ema)

        def on_log(step: int, info: dict[str, float]) -> None:
            if "loss" in info:
                history["step"].append(step)
                history["loss"].append(info["loss"])
            if trainer.on_log is not None:
                trainer.on_log(step, info)

        reporting = dataclasses.replace(
            trainer, optimizer=optimizer, on_step=on_step, on_log=on_log
        )
        yield reporting, history


def _source(
    key: PRNGKey, split: Split, objective: Objective, trainer: Trainer, params: Params, *others: Any
) -> dict[str, str]:
    """The objective, and a digest of all that shapes a training, nameless functions by kind."""
    drawn = np.asarray(jax.random.key_data(key)).tolist()
    arrays = jax.tree.map(jax.numpy.asarray, params)
    frozen = None if trainer.store is None else digests.of_tree(arrays)  # reads all of a denoiser
    described = digests.describe((trainer, *others), nameless=digests.kind_of)
    text = f"{described} {drawn} {frozen} {fingerprint(split)}"
    return {"objective": type(objective).__name__, "training": digests.of_bytes(text.encode())}


@contextlib.contextmanager
def _blaming(
    denoiser: Denoiser, denoiser_params: Params, split: Split, objective: Objective
) -> Iterator[None]:
    """Re-raise NonFiniteError with the times at which the denoiser returns NaN or inf."""
    try:
        yield
    except failures.NonFiniteError as error:
        x0, c = split.x[:NUM_PROBES], conditions.take(split.c, slice(NUM_PROBES))
        times = sorted({*objective.times, *PROBE_TIMES} - {0.0})
        asked = [t for t in times if t <= t_max(denoiser)]
        why = probe.non_finite_report(denoiser, denoiser_params, x0, c, asked)
        raise failures.NonFiniteError(f"{error}; {why}", error.steps, error.examples) from None


def _with_mesh(trainer: Trainer | None) -> tuple[Trainer, Mesh]:
    """The trainer with its devices, one by default."""
    trainer = Trainer() if trainer is None else trainer
    mesh = parallel.make_mesh(1) if trainer.mesh is None else trainer.mesh
    return dataclasses.replace(trainer, mesh=mesh), mesh


def _placed(denoiser: Denoiser, params: Params, mesh: Mesh) -> tuple[Denoiser, Params]:
    """The denoiser with its calls split over the devices, and its parameters on them."""
    sharding = parallel.param_sharding(params, mesh)
    return parallel.spread(denoiser, mesh), parallel.place(params, sharding)


def _prepared(objective: Objective, split: Split, trainer: Trainer) -> tuple[Objective, Split]:
    """The objective, and what it makes of all examples once instead of in every step."""
    if objective.group_size is None:
        return objective, split
    num_steps = _STEPS if trainer.optimizer is None else trainer.optimizer.num_steps
    strata, rounds = _strata_and_rounds(objective, split, trainer.batch_size)
    num_draws = num_steps * strata * rounds * objective.group_size
    return objective.prepared(split, num_draws, progress=trainer.progress)


def _strata_and_rounds(objective: Objective, split: Split, batch_size: int) -> tuple[int, int]:
    """Strata of a step, and groups of each: as many as the batch holds, and at least one."""
    assert objective.group_size is not None  # else there are no groups
    held = max(1, batch_size // objective.group_size)
    wanted = objective.conditions_per_step or held
    strata = min(max(1, split.num_strata), wanted)
    return strata, max(1, held // strata)


def _batches(
    objective: Objective, split: Split, batch_size: int, mesh: Mesh, key: PRNGKey
) -> tuple[Batches, int | None]:
    """The part of each batch that this process reads, and the axis along which it is split."""
    seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
    if objective.group_size is None:
        rows = parallel.local_rows(batch_size, mesh)
        return pipeline.examples(split, batch_size, seed=seed, rows=rows), 0
    strata, rounds = _strata_and_rounds(objective, split, batch_size)
    sizes = {"groups": strata * rounds, "members": objective.group_size}
    even = [name for name, size in sizes.items() if size % mesh.size == 0]
    part = {name: parallel.local_rows(sizes[name], mesh) for name in even[:1]}
    batches = pipeline.groups(
        split, objective.group_size, seed=seed, rounds=rounds, strata=strata, **part
    )
    return batches, list(sizes).index(even[0]) if even else None
