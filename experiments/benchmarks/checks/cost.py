r"""What learning and guiding cost beside the bare calls of the denoiser.

    python -m experiments.benchmarks cost --name=benchmark-cost-cpu
    python -m experiments.benchmarks cost --width=2048 --depth=12 --batch=4096 --rounds=15 \
        --name=benchmark-cost-h100

Three ratios, each of things run in turn in one process: a one-step training step to the denoiser
calls in it; guided sampling to its calls; the gradient of a trajectory to its forward pass. And the
memory of that gradient over the number of steps K, as XLA plans it. The denoiser is a residual MLP
of at least 20 MFLOP a sample. The second command takes about a minute on an H100.
"""

import math
from argparse import Namespace
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from experiments.benchmarks.device.timing import ratio
from experiments.publish.markdown import number, text
from experiments.publish.study import Add, Study
from lgd import guidance, objectives, omega, sampling, schedules, training
from lgd.denoisers import NetworkDenoiser, ResidualMLP
from lgd.diffusion import denoise_pair
from lgd.encoders import Labels
from lgd.learn import omega_loss
from lgd.machinery import parallel
from lgd.machinery.flops import matrix_flops
from lgd.machinery.progress import bar
from lgd.types import Batch, Params

FLOW = schedules.rectified_flow()
NUM_CLASSES, SHAPE = 10, (16, 16, 1)
STEPS = (5, 10, 20, 40)  # K of the memory measurement
TARGETS = {"one_step": 1.10, "sampler": 1.05, "trajectory": 4.5}
QUARTILES = "{low:.3f} to {high:.3f}"
COLUMNS = [
    text("what", "what"),
    number("ratio", "ratio", ".3f"),
    number("", "quartiles", QUARTILES),
    number("target", "at most", "g"),
]


class Case(NamedTuple):
    """A denoiser of labels that is measured, for samples of a shape.

    batch: examples of a training step, samples, or particles of all groups of a trajectory.
    groups: conditions among those particles.
    """

    denoiser: NetworkDenoiser
    params: Params
    shape: tuple[int, ...]
    batch: int
    groups: int

    @property
    def num_classes(self) -> int:
        """Number of labels of the denoiser."""
        if self.denoiser.num_classes is None:
            raise ValueError("expected a denoiser of labels, got one of vectors")
        return self.denoiser.num_classes

    def inputs(self, count: int) -> tuple[Array, Array, Array]:
        """Return x_t, t and c."""
        x = jax.random.normal(jax.random.key(1), (count, *self.shape))
        return x, jnp.full(count, 0.5), jnp.arange(count, dtype=jnp.int32) % self.num_classes


def residual_mlp(width: int, depth: int, batch: int) -> Case:
    """Return a denoiser with random parameters."""
    denoiser = NetworkDenoiser(ResidualMLP(NUM_CLASSES, width, depth), FLOW, NUM_CLASSES)
    return Case(denoiser, denoiser.init(jax.random.key(0), SHAPE), SHAPE, batch, NUM_CLASSES)


def pair_call(denoiser: NetworkDenoiser) -> Callable[..., Any]:
    """Return the two calls of a guided step, and nothing else."""
    return jax.jit(lambda params, x, t, c: denoise_pair(denoiser, params, x, t=t, c=c))


def call_flops(case: Case) -> float:
    """Return the FLOPs of one call of the denoiser for one sample."""
    x, t, c = case.inputs(1)
    return matrix_flops(lambda params: case.denoiser.apply(params, x, t=t, c=c), case.params)


def one_step(case: Case, rounds: int) -> dict[str, float]:
    """Return the time of a training step, m = 4, over that of its denoiser calls."""
    denoiser, params, batch = case.denoiser, case.params, case.batch
    objective = objectives.SelfConsistency()
    model = omega.Network(
        schedule=denoiser.schedule, encoder=Labels(case.num_classes), support=objective.support
    )
    optimizer = training.Optimizer(num_steps=1000)
    x, t, c = case.inputs(batch * objective.num_particles)
    state = training.init_state(model.init(jax.random.key(0), c), optimizer)
    call, key = pair_call(denoiser), jax.random.key(2)
    loss = omega_loss(objective, model, denoiser)
    real, mesh = Batch(x[:batch], c[:batch]), parallel.make_mesh(1)
    step = training.make_step(loss, optimizer, mesh=mesh, state=state, frozen=params, batch=real)

    def train() -> Any:
        nonlocal state
        state, info = step(state, params, real, key)
        return info

    return ratio(train, lambda: call(params, x, t, c), rounds)


def guided_sampler(case: Case, rounds: int) -> dict[str, float]:
    """Return the time of 25 guided DDIM steps over that of 25 pairs of calls."""
    denoiser, params = case.denoiser, case.params
    x, t, c = case.inputs(case.batch)
    times, call = schedules.uniform_times(25), pair_call(denoiser)
    omegas = guidance.on_grid(guidance.constant(0.5), times, c)

    def draw() -> Any:
        key = jax.random.key(0)
        return sampling.sample(
            key, denoiser, params, c, guidance=omegas, shape=case.shape, times=times
        ).x0

    def bare() -> Any:
        return [call(params, x, t, c) for _ in range(len(times) - 1)]

    return ratio(draw, bare, rounds)


def trajectory_loss(case: Case, num_steps: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """Return the loss of K unrolled steps, and its arguments."""
    times = tuple(float(t) for t in schedules.uniform_times(num_steps))
    particles = case.batch // case.groups
    objective = objectives.Trajectory(times=times, num_particles=particles, num_targets=particles)
    model = omega.StepTable(times=times, rows=omega.ByLabel(case.num_classes))
    x0 = jax.random.normal(jax.random.key(1), (case.groups, particles, *case.shape))
    c = jnp.repeat(jnp.arange(case.groups, dtype=jnp.int32)[:, None], particles, axis=1)
    real, key = Batch(x0, c), jax.random.key(2)
    params = model.init(key, jnp.arange(case.num_classes))
    return omega_loss(objective, model, case.denoiser), (params, case.params, real, key)


def trajectory_gradient(
    case: Case, num_steps: int
) -> tuple[Callable[[], Any], Callable[[], Any], Any]:
    """Return the gradient of a K-step trajectory, its forward pass, and the compiled gradient."""
    loss, arguments = trajectory_loss(case, num_steps)
    gradient, forward = jax.jit(jax.value_and_grad(loss, has_aux=True)), jax.jit(loss)
    compiled = gradient.lower(*arguments).compile()
    return lambda: compiled(*arguments), lambda: forward(*arguments), compiled


def working_bytes(compiled: Any) -> int:
    """Return the memory that XLA plans between arguments and results."""
    return int(compiled.memory_analysis().temp_size_in_bytes)


def trajectory(case: Case, rounds: int) -> dict[str, float]:
    """Return the time of a gradient at K = 10 over that of its forward pass."""
    gradient, forward, _ = trajectory_gradient(case, 10)
    return ratio(gradient, forward, rounds)


def trajectory_memory(case: Case) -> dict[str, Any]:
    """Return the memory of the gradient over K, and its growth in units of one stored state."""
    memory = {k: working_bytes(trajectory_gradient(case, k)[2]) for k in STEPS}
    state = case.batch * 4 * math.prod(case.shape)
    growth = (memory[STEPS[-1]] - memory[STEPS[0]]) / (STEPS[-1] - STEPS[0])
    sizes = {str(k): size for k, size in memory.items()}
    return {"bytes": sizes, "state_bytes": state, "growth_in_states": growth / state}


def measure(options: Namespace) -> dict[str, Any]:
    """Return the three ratios, and the growth of memory."""
    case, rounds = residual_mlp(options.width, options.depth, options.batch), options.rounds
    parts = {
        "training step / its denoiser calls": ("one_step", one_step),
        "guided sampler / its denoiser calls": ("sampler", guided_sampler),
        "gradient of a trajectory / its forward pass": ("trajectory", trajectory),
    }
    rows = []
    with bar("cost", len(parts)) as advance:
        for what, (name, ratio) in parts.items():
            rows.append({"what": what, **ratio(case, rounds), "target": TARGETS[name]})
            advance(name)
    memory = trajectory_memory(case)
    growth = "memory of that gradient for each further step / one state"
    mflop = call_flops(case) / 1e6
    return {
        "settings": settings(options),
        "mflop": mflop,
        "memory": memory,
        "columns": COLUMNS,
        "rows": [*rows, {"what": growth, "ratio": memory["growth_in_states"]}],
        "note": f"{described(options, mflop)}, {rounds} rounds.",
    }


def settings(options: Namespace) -> dict[str, Any]:
    """Return the settings of a comparison."""
    return {name: vars(options)[name] for name in ("width", "depth", "batch", "rounds")}


def described(options: Namespace, mflop: float) -> str:
    """Return what a note says of the denoiser."""
    return f"Denoiser: {mflop:.0f} MFLOP a sample; batch {options.batch}"


def arguments(add: Add, depth: int = 10) -> None:
    """Add the arguments of a comparison of times."""
    add("--width", type=int, default=1024, help="of the denoiser")
    add("--depth", type=int, default=depth, help="of the denoiser")
    add("--batch", type=int, default=256, help="examples, samples, particles")
    add("--rounds", type=int, default=7, help="of every comparison")


STUDY = Study(measure=measure, arguments=arguments)
