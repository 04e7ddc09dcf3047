"""Learn guidance for a frozen model in one call."""

import contextlib
import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from lgd import guidance, omega, schedules, training
from lgd.data import pipeline
from lgd.data.dataset import FileImages, Split
from lgd.data.dataset import fingerprint as data_fingerprint
from lgd.machinery import failures, parallel, processes, stopping
from lgd.machinery.progress import bar
from lgd.metrics.features import extract
from lgd.objectives import Objective, Trajectory
from lgd.omega import Guidance
from lgd.training import Batches, Loss, Optimizer, Store
from lgd.types import Batch, Denoiser, OmegaFn, OmegaModel, Params, PRNGKey

START_WEIGHTS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
START_BATCHES = 4  # on which they are compared
NUM_PROBES = 64  # examples on which a denoiser is examined
PROBE_TIMES = tuple(np.linspace(1.0, 0.0, 101)[:-1].tolist())  # where NaN is looked for
_FEATURE_BATCH = 1024  # examples at once
_OF_A_TABLE = Optimizer(num_steps=200, learning_rate=0.1, ema_decay=0.98)
_FINE_TABLE = omega.StepTable(times=tuple(np.linspace(1.0, 0.0, 65).tolist()))


def start_schedules() -> dict[str, OmegaFn]:
    """Hand-made schedules that training may start from: constants, intervals, clamp-linear."""
    named: dict[str, OmegaFn] = {f"constant({w:g})": guidance.constant(w) for w in START_WEIGHTS}
    for w, (lo, hi) in itertools.product((0.1, 0.3, 1.0, 3.0), ((0.0, 0.5), (0.2, 0.8))):
        named[f"limited_interval({w:g}, {lo:g}, {hi:g})"] = guidance.limited_interval(w, lo, hi)
    for scale in (0.6, 0.8, 1.0, 1.5, 2.5):
        named[f"clamp_linear({scale:g})"] = guidance.clamp_linear(scale)
    return named


@failures.memory_advice()
def learn_guidance(
    key: PRNGKey,
    denoiser: Denoiser,
    denoiser_params: Params,
    x0: np.ndarray | Array | FileImages,
    labels: np.ndarray | Array,
    *,
    objective: Objective | None = None,
    model: omega.LearnedModel | None = None,
    optimizer: Optimizer | None = None,
    batch_size: int = 256,
    start: Mapping[str, OmegaFn] | None = None,
    warm: Guidance | None = None,
    mesh: Mesh | None = None,
    store: Store | None = None,
    save_every: int = 0,
    log_every: int = 10,
    on_log: Callable[[int, dict[str, float]], None] | None = None,
    on_step: Callable[[int, Params], None] | None = None,
    progress: bool = True,
) -> Guidance:
    """Learn omega for a frozen class-conditional denoiser from real examples.

    By default a table over class and step, trained by `Trajectory` over 25 uniform DDIM steps from
    noise to data: the objective to trust without knowing whether guidance helps. Training starts
    from the best of a few hand-made schedules under the objective itself.

    Args:
      key: source of all randomness.
      denoiser: the frozen model; ``denoiser_params`` its arrays.
      x0: real examples (n, *dims), in memory or in files, see `lgd.data`.
      labels: their classes (n,), integers from 0.
      objective: what to minimise, see `lgd.objectives`.
      model: what to learn; by default a `StepTable` on the grid of a trajectory objective, and the
        paper's network over the objective's support otherwise.
      optimizer: by default 200 steps at 0.1 for a table, 300 at 3e-3 for a network.
      batch_size: examples of a step; objectives on groups take as many rounds of one group for
        every class as fit, and at least one.
      start: schedules to choose the start from, by name; by default `start_schedules`, or the
        constants among them for a network. A network starts at the mean of the schedule chosen.
      warm: guidance learned before, whose model and parameters training starts from instead, for
        instance with a smaller reward weight; ``model`` and ``start`` are then left out.
      mesh: devices, see `parallel.make_mesh`; one by default. They must divide the batch_size of
        an objective on examples; groups are split where they can be.
      store, save_every, log_every, on_log, on_step: as in `lgd.training.fit`.
      progress: show a bar.

    Raises:
      ValueError: when arrays, labels or settings do not fit, or the store holds the training of
        other data, of another key, batch size, optimizer or kind of objective.
      NonFiniteError: see `lgd.training.fit`; names the times at which the denoiser is not finite.
      Stopped, DeviceMemoryError: see `lgd.training.fit`.
    """
    if warm is not None and (model is not None or start is not None):
        raise ValueError("expected no model and no start beside warm, got both")
    split = _checked_split(x0, labels)
    objective = default_objective() if objective is None else objective
    num_classes = int(split.labels.max()) + 1
    data_key, start_key, init_key, fit_key = jax.random.split(key, 4)
    mesh = parallel.make_mesh(1) if mesh is None else mesh
    steps = _OF_A_TABLE.num_steps if optimizer is None else optimizer.num_steps
    objective, seen = _with_features_of(split, objective, steps, batch_size, progress)
    batches, batch_axis = _batches(objective, seen, batch_size, mesh, data_key)
    denoiser = parallel.spread(denoiser, mesh)
    denoiser_params = parallel.place(
        denoiser_params, parallel.param_sharding(denoiser_params, mesh)
    )
    with (
        _blaming(denoiser, denoiser_params, split, objective),
        pipeline.reading_ahead(batches) as batches,
    ):
        if warm is None:
            model = _default_model(objective, num_classes, denoiser) if model is None else model
            start = _start_candidates(model) if start is None else start
            table = _FINE_TABLE if isinstance(model, omega.Network) else model
            chosen = best_schedule(
                start_key,
                omega_loss(objective, table, denoiser),
                denoiser_params,
                [parallel.place_batch(batches(i), mesh, batch_axis) for i in range(START_BATCHES)],
                start,
                table=table,
                mesh=mesh,
            )
            model, params = _started(model, init_key, start[chosen], num_classes)
        else:
            model, params, chosen = warm
        optimizer = default_optimizer(model) if optimizer is None else optimizer
        fingerprint = _fingerprint(key, split, objective, optimizer, batch_size)
        name = type(objective).__name__
        with bar(f"learn omega: {name}", optimizer.num_steps, show=progress) as advance:

            def after_step(step: int, ema: Params) -> None:
                advance("")
                if on_step is not None:
                    on_step(step, ema)

            state = training.fit(
                fit_key,
                omega_loss(objective, model, denoiser),
                params,
                frozen=denoiser_params,
                batches=batches,
                optimizer=optimizer,
                project=model.project,
                mesh=mesh,
                batch_axis=batch_axis,
                store=store,
                fingerprint=fingerprint,
                save_every=save_every,
                log_every=log_every,
                on_log=on_log,
                on_step=after_step,
            )
    return Guidance(model, jax.device_put(processes.to_host(state.ema)), chosen)


def _fingerprint(
    key: PRNGKey, split: Split, objective: Objective, optimizer: Optimizer, batch_size: int
) -> str:
    """Of what a training that is resumed must share with its beginning."""
    settings = f"{type(objective).__name__} {optimizer} batch_size={batch_size}"
    drawn = np.asarray(jax.random.key_data(key)).tolist()
    return hashlib.sha256(f"{settings} {drawn} {data_fingerprint(split)}".encode()).hexdigest()


@contextlib.contextmanager
def _blaming(
    denoiser: Denoiser, denoiser_params: Params, split: Split, objective: Objective
) -> Iterator[None]:
    """Adds to a `NonFiniteError` at which times the denoiser is not finite."""
    try:
        yield
    except failures.NonFiniteError as error:
        times = objective.times if isinstance(objective, Trajectory) else ()
        x0, c = split.x[:NUM_PROBES], split.labels[:NUM_PROBES]
        why = failures.blame(
            denoiser, denoiser_params, x0, c, sorted({*times, *PROBE_TIMES} - {0.0})
        )
        raise failures.NonFiniteError(f"{error}; {why}", error.steps, error.examples) from None


def best_schedule(
    key: PRNGKey,
    loss: Loss,
    denoiser_params: Params,
    batches: Sequence[Batch],
    candidates: Mapping[str, OmegaFn],
    *,
    table: omega.StepTable | omega.BinTable,
    mesh: Mesh,
) -> str:
    """The name of the candidate schedule of smallest mean loss, all with the same data and draws.

    They are compared as they stand in ``table``, whose loss is given, so that one compiled
    loss serves all. Parameters and batches lie on the mesh. Raises NonFiniteError where no loss is
    finite, and `Stopped` when a signal asked for it.
    """
    if len(candidates) == 1:
        return next(iter(candidates))
    loss = jax.jit(loss)
    everywhere = parallel.replicated(mesh)
    keys = [parallel.place(each, everywhere) for each in jax.random.split(key, len(batches))]

    def mean_loss(omega_fn: OmegaFn) -> float:
        params = parallel.place(table.tabulate(omega_fn), everywhere)
        pairs = zip(batches, keys, strict=True)
        losses = [loss(params, denoiser_params, batch, each)[0] for batch, each in pairs]
        return float(np.mean([np.asarray(value) for value in losses]))

    means = {}
    for name, omega_fn in candidates.items():
        means[name] = mean_loss(omega_fn)
        stopping.check(f"start schedule {name}")
    finite = [name for name, mean in means.items() if np.isfinite(mean)]
    if not finite:
        raise failures.NonFiniteError("expected finite losses of the start schedules, got none")
    return min(finite, key=lambda name: means[name])


def _start_candidates(model: omega.LearnedModel) -> dict[str, OmegaFn]:
    named = start_schedules()
    if not isinstance(model, omega.Network):
        return named
    return {name: fn for name, fn in named.items() if name.startswith("constant")}


def _started(
    model: omega.LearnedModel, key: PRNGKey, omega_fn: OmegaFn, num_classes: int
) -> tuple[omega.LearnedModel, Params]:
    """The model with parameters that equal the schedule, or for a network its mean."""
    if not isinstance(model, omega.Network):
        return model, model.tabulate(omega_fn)
    c = jnp.arange(num_classes, dtype=jnp.int32)
    mean = float(jnp.mean(guidance.on_grid(omega_fn, jnp.linspace(1.0, 0.0, 33), c)))
    model = dataclasses.replace(model, init_omega=min(max(mean, 0.01), 0.99 * model.omega_max))
    return model, model.init(key)


def omega_loss(objective: Objective, model: OmegaModel, denoiser: Denoiser) -> Loss:
    """The loss of an objective as a function of a model's parameters."""

    def loss(
        params: Params, denoiser_params: Params, batch: Batch, key: PRNGKey
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        return objective(key, omega.bind(model, params), denoiser, denoiser_params, batch)

    return loss


def default_objective() -> Trajectory:
    """`Trajectory` over 25 uniform steps."""
    return Trajectory(times=tuple(np.asarray(schedules.uniform_times(25)).tolist()))


def _default_model(
    objective: Objective, num_classes: int, denoiser: Denoiser
) -> omega.LearnedModel:
    if isinstance(objective, Trajectory):
        return omega.StepTable(times=objective.times, num_classes=num_classes)
    return omega.Network(
        schedule=denoiser.schedule, num_classes=num_classes, support=objective.support
    )


def default_optimizer(model: omega.LearnedModel) -> Optimizer:
    """Settings that suit a table, or a network."""
    if isinstance(model, omega.Network):
        return Optimizer(num_steps=300, learning_rate=3e-3, ema_decay=0.98)
    return _OF_A_TABLE


def _with_features_of(
    split: Split, objective: Objective, num_steps: int, batch_size: int, progress: bool
) -> tuple[Objective, Split]:
    """Features of real examples once instead of in every step, where that is less work."""
    if not isinstance(objective, Trajectory) or not objective.takes_features:
        return objective, split
    num_classes = int(split.labels.max()) + 1
    rounds = _rounds(objective.group_size, num_classes, batch_size)
    drawn = num_steps * rounds * num_classes * objective.group_size
    if isinstance(split.x, FileImages) or drawn < len(split.x):
        return objective, split
    assert objective.features is not None  # which takes_features says
    feature_fn = jax.jit(objective.features)
    size = min(_FEATURE_BATCH, len(split.x))
    with bar("features of real examples", -(-len(split.x) // size), show=progress) as advance:

        def counted(x: Array) -> Array:
            advance("")
            return feature_fn(x)

        x = extract(counted, split.x, batch_size=size)
    return dataclasses.replace(objective, example_shape=split.x.shape[1:]), Split(x, split.labels)


def _rounds(group_size: int, num_classes: int, batch_size: int) -> int:
    """Groups of every class in a batch."""
    return max(1, batch_size // (group_size * num_classes))


def _batches(
    objective: Objective, split: Split, batch_size: int, mesh: Mesh, key: PRNGKey
) -> tuple[Batches, int | None]:
    """The part of each batch that this process reads, and the axis along which it is split."""
    seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
    if objective.group_size is None:
        rows = parallel.local_rows(batch_size, mesh)
        return pipeline.examples(split, batch_size, seed=seed, rows=rows), 0
    num_classes = int(split.labels.max()) + 1
    rounds = _rounds(objective.group_size, num_classes, batch_size)
    sizes = {"groups": rounds * num_classes, "members": objective.group_size}
    even = [name for name, size in sizes.items() if size % mesh.size == 0]
    part = {name: parallel.local_rows(sizes[name], mesh) for name in even[:1]}
    batches = pipeline.class_groups(split, objective.group_size, seed=seed, rounds=rounds, **part)
    return batches, list(sizes).index(even[0]) if even else None


def _checked_split(x0: np.ndarray | Array | FileImages, labels: np.ndarray | Array) -> Split:
    labels = np.asarray(labels)
    if not len(x0) or labels.shape != x0.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"expected integer labels ({len(x0)},) for x0 {x0.shape}, "
            f"got {labels.dtype} {labels.shape}"
        )
    if labels.min() < 0 or not (isinstance(x0, FileImages) or np.isfinite(np.asarray(x0)).all()):
        raise ValueError("expected finite x0 and labels >= 0, got others")
    x0 = x0 if isinstance(x0, FileImages) else np.asarray(x0, np.float32)
    return Split(x0, labels.astype(np.int32))
