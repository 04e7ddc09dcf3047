"""What learning and guiding cost beside the bare calls of the denoiser.

    python -m experiments.benchmarks.checks.cost
    python -m experiments.benchmarks.checks.cost --width=2048 --depth=12 --batch=4096 \
        --name=cost-h100

Three ratios, each of things run in turn in one process: a one-step training step to the denoiser
calls in it; guided sampling to its calls; the gradient of a trajectory to its forward pass. And the
memory of that gradient over the number of steps K, as XLA plans it. The denoiser is a residual MLP
of at least 20 MFLOP a sample. Writes experiments/results/benchmark-NAME.json and prints a
table. The second command took about a minute on an H100, with 15 rounds.
"""

import argparse
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from experiments.benchmarks.device.flops import matrix_flops
from experiments.benchmarks.device.timing import ratios
from experiments.publish.tables import RESULTS
from experiments.workdir import write_json
from experiments.workdir.provenance import provenance
from lgd import guidance, objectives, omega, sampling, schedules, training
from lgd.denoisers import NetworkDenoiser, ResidualMLP
from lgd.diffusion import denoise_pair
from lgd.encoders import Labels
from lgd.learn import omega_loss
from lgd.machinery import parallel
from lgd.machinery.progress import bar
from lgd.types import Batch, Params

FLOW = schedules.rectified_flow()
NUM_CLASSES, SHAPE = 10, (16, 16, 1)
STEPS = (5, 10, 20, 40)  # K of the memory measurement
TARGETS = {"one_step": 1.10, "sampler": 1.05, "trajectory": 4.5}


class Case(NamedTuple):
    """What is measured: a denoiser of labels, for samples of a shape.

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
        """Of its labels."""
        if self.denoiser.num_classes is None:
            raise ValueError("expected a denoiser of labels, got one of vectors")
        return self.denoiser.num_classes

    def inputs(self, count: int) -> tuple[Array, Array, Array]:
        """x_t, t, c."""
        x = jax.random.normal(jax.random.key(1), (count, *self.shape))
        return x, jnp.full(count, 0.5), jnp.arange(count, dtype=jnp.int32) % self.num_classes


def residual_mlp(width: int, depth: int, batch: int) -> Case:
    """With random parameters."""
    denoiser = NetworkDenoiser(ResidualMLP(NUM_CLASSES, width, depth), FLOW, NUM_CLASSES)
    return Case(denoiser, denoiser.init(jax.random.key(0), SHAPE), SHAPE, batch, NUM_CLASSES)


def pair_call(denoiser: NetworkDenoiser) -> Callable[..., Any]:
    """The two calls of a guided step, and nothing else."""
    return jax.jit(lambda params, x, t, c: denoise_pair(denoiser, params, x, t=t, c=c))


def call_flops(case: Case) -> float:
    """Of one call of the denoiser for one sample."""
    x, t, c = case.inputs(1)
    return matrix_flops(lambda params: case.denoiser.apply(params, x, t=t, c=c), case.params)


def one_step(case: Case, rounds: int) -> dict:
    """A training step of self-consistency, m = 4 particles, to one pair of calls on 4 batch."""
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

    runs = {"training step": train, "bare calls": lambda: call(params, x, t, c)}
    return ratios(runs, against="bare calls", rounds=rounds)


def guided_sampler(case: Case, rounds: int) -> dict:
    """25 guided DDIM steps to 25 pairs of calls."""
    denoiser, params = case.denoiser, case.params
    x, t, c = case.inputs(case.batch)
    times, call = schedules.uniform_times(25), pair_call(denoiser)
    omegas = guidance.on_grid(guidance.constant(0.5), times, c)

    def draw() -> Any:
        key = jax.random.key(0)
        return sampling.sample(key, denoiser, params, omegas, c, shape=case.shape, times=times).x0

    def bare() -> Any:
        return [call(params, x, t, c) for _ in range(len(times) - 1)]

    return ratios({"guided sampler": draw, "bare calls": bare}, against="bare calls", rounds=rounds)


def trajectory_loss(case: Case, num_steps: int) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The loss of K unrolled steps, and its arguments; those of the denoiser are the case's."""
    times = tuple(float(t) for t in schedules.uniform_times(num_steps))
    particles = case.batch // case.groups
    objective = objectives.Trajectory(times=times, num_particles=particles, num_targets=particles)
    model = omega.StepTable(times=times, rows=omega.ByLabel(case.num_classes))
    x0 = jax.random.normal(jax.random.key(1), (case.groups, particles, *case.shape))
    real, key = Batch(x0, jnp.arange(case.groups, dtype=jnp.int32)), jax.random.key(2)
    params = model.init(key, jnp.arange(case.num_classes))
    return omega_loss(objective, model, case.denoiser), (params, case.params, real, key)


def trajectory_gradient(
    case: Case, num_steps: int
) -> tuple[Callable[[], Any], Callable[[], Any], Any]:
    """The gradient of a K-step trajectory, its forward pass, and the compiled gradient."""
    loss, arguments = trajectory_loss(case, num_steps)
    gradient, forward = jax.jit(jax.value_and_grad(loss, has_aux=True)), jax.jit(loss)
    compiled = gradient.lower(*arguments).compile()
    return lambda: compiled(*arguments), lambda: forward(*arguments), compiled


def working_bytes(compiled: Any) -> int:
    """Of memory that XLA plans between arguments and results."""
    return int(compiled.memory_analysis().temp_size_in_bytes)


def trajectory(case: Case, rounds: int) -> dict:
    """Time at K = 10, and memory over K beside the K stored states."""
    gradient, forward, _ = trajectory_gradient(case, 10)
    runs = {"gradient": gradient, "forward": forward}
    memory = {k: working_bytes(trajectory_gradient(case, k)[2]) for k in STEPS}
    state = case.batch * 4 * math.prod(case.shape)
    growth = (memory[STEPS[-1]] - memory[STEPS[0]]) / (STEPS[-1] - STEPS[0])
    return ratios(runs, against="forward", rounds=rounds) | {
        "memory": {
            "bytes": {str(k): size for k, size in memory.items()},
            "state_bytes": state,
            "growth_in_states": growth / state,
        }
    }


def table(results: Mapping) -> str:
    """Ratio, its quartiles and the target of every comparison; memory over K."""
    names = {
        "one_step": ("training step", "training step / its denoiser calls"),
        "sampler": ("guided sampler", "guided sampler / its denoiser calls"),
        "trajectory": ("gradient", "gradient of a trajectory / its forward pass"),
    }
    lines = ["| what | ratio | quartiles | at most |", "|---|---:|---:|---:|"]
    for name, (part, label) in names.items():
        found = results[name][part]
        quartiles = f"{found['low']:.3f} to {found['high']:.3f}"
        target = results["targets"][name]
        lines.append(f"| {label} | {found['ratio']:.3f} | {quartiles} | {target:g} |")
    growth = results["trajectory"]["memory"]["growth_in_states"]
    lines.append(
        f"| memory of that gradient for each further step / one state | {growth:.3f} | | |"
    )
    settings = results["settings"]
    return "\n".join(lines) + (
        f"\n\nDenoiser: {results['mflop']:.0f} MFLOP a sample; batch {settings['batch']}, "
        f"{settings['rounds']} rounds.\n"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=1024, help="of the denoiser")
    parser.add_argument("--depth", type=int, default=10, help="of the denoiser")
    parser.add_argument("--batch", type=int, default=256, help="examples, samples, particles")
    parser.add_argument("--rounds", type=int, default=7, help="of every comparison")
    parser.add_argument("--name", default="cost-cpu", help="of the file of results")
    chosen = parser.parse_args()
    case = residual_mlp(chosen.width, chosen.depth, chosen.batch)
    results: dict[str, Any] = provenance(
        f"python -m experiments.benchmarks.checks.cost --width={chosen.width} "
        f"--depth={chosen.depth} --batch={chosen.batch} --rounds={chosen.rounds}"
    )
    results |= {"settings": vars(chosen), "mflop": call_flops(case) / 1e6, "targets": TARGETS}
    parts = {"one_step": one_step, "sampler": guided_sampler, "trajectory": trajectory}
    with bar("cost", len(parts)) as advance:
        for name, measure in parts.items():
            results[name] = measure(case, chosen.rounds)
            advance(name)
    write_json(RESULTS / f"benchmark-{chosen.name}.json", results)
    print(table(results))


if __name__ == "__main__":
    main()
