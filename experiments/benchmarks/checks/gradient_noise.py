"""Noise of every objective's gradient at equal cost, on the 2-D mixture.

    python -m experiments.benchmarks.checks.gradient_noise   # within 4 minutes on an H100

The paper prefers self-consistency to matching marginals for its gradient of low variance. Here the
gradient with respect to the paper's network at its start, omega = 1, on an under-trained denoiser:
its total variance over the squared norm of its mean, ``tr Cov(g) / |E g|^2``, for batches that cost
equally many pairs of denoiser calls. A gradient through K unrolled steps counts 3 K pairs a
particle.
Writes experiments/results/benchmark-gradient-noise.json and docs/gradient-noise.png.
"""

import argparse
import tempfile
from collections.abc import Callable

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from experiments import build, pipeline
from experiments import config as configs
from experiments.publish.tables import RESULTS, ROOT
from experiments.stages import denoiser as denoiser_stage
from experiments.workdir import Workdir, write_json
from experiments.workdir.provenance import provenance
from lgd import objectives, omega, plots
from lgd.encoders import Labels
from lgd.learn import omega_loss
from lgd.machinery.progress import bar
from lgd.objectives import Objective
from lgd.types import Batch, Denoiser, Params, PRNGKey

BUDGETS = (1024, 4096, 16384)  # pairs of denoiser calls for one gradient
TIMES = tuple(np.linspace(1.0, 0.0, 11).tolist())  # of the trajectory, K = 10
NUM_CLASSES = 8
Draw = Callable[[PRNGKey, Array], Array]  # (key, labels) -> real x0


def contenders() -> dict[str, Callable[[int], Objective]]:
    """Objectives by name, each from a number of pairs; only the trajectory's size depends on it."""
    steps = 3 * (len(TIMES) - 1)

    def trajectory(pairs: int) -> Objective:
        particles = max(2, pairs // (steps * NUM_CLASSES))
        return objectives.Trajectory(times=TIMES, num_particles=particles, num_targets=particles)

    return {
        "learned:self_consistency": lambda pairs: objectives.SelfConsistency(),
        "learned:l2": lambda pairs: objectives.l2(),
        "learned:guided_score_matching": lambda pairs: objectives.GuidedScoreMatching(),
        "learned:conditional_marginal": lambda pairs: objectives.ConditionalMarginalConsistency(),
        "learned:marginal": lambda pairs: objectives.MarginalConsistency(),
        "learned:trajectory": trajectory,
    }


def draw_batch(key: PRNGKey, objective: Objective, pairs: int, draw: Draw) -> Batch:
    """Fresh real data that make an objective call the denoiser on ``pairs`` inputs."""
    label_key, x0_key = jax.random.split(key)
    if isinstance(objective, objectives.Trajectory):
        c = jnp.arange(NUM_CLASSES, dtype=jnp.int32)
    else:
        c = jax.random.randint(label_key, (pairs // _pairs_of_one(objective),), 0, NUM_CLASSES)
    if objective.group_size is None:
        return Batch(draw(x0_key, c), c)
    x0 = draw(x0_key, jnp.repeat(c, objective.group_size))
    return Batch(x0.reshape(len(c), objective.group_size, -1), c)


def _pairs_of_one(objective: Objective) -> int:
    """Pairs of calls for one condition of a batch."""
    if isinstance(objective, objectives.MarginalConsistency):
        return 1
    if isinstance(objective, objectives.ConditionalMarginalConsistency):
        return objective.group_size
    return objective.num_particles


def noise(
    objective: Objective,
    pairs: int,
    denoiser: Denoiser,
    params: Params,
    model: omega.Network,
    draw: Draw,
    repeats: int,
) -> dict[str, float]:
    """``tr Cov(g) / |E g|^2`` over independent gradients, and its error by halves of them."""
    omega_params = model.init(jax.random.key(0), jnp.arange(NUM_CLASSES))
    loss = omega_loss(objective, model, denoiser)

    @jax.jit
    def gradient(key: PRNGKey) -> Float[Array, " p"]:
        data_key, loss_key = jax.random.split(key)
        batch = draw_batch(data_key, objective, pairs, draw)
        grads = jax.grad(loss, has_aux=True)(omega_params, params, batch, loss_key)[0]
        return jax.flatten_util.ravel_pytree(grads)[0]

    keys = jax.random.split(jax.random.key(1), repeats)
    grads = np.stack([np.asarray(gradient(key), np.float64) for key in keys])
    halves = [_relative_noise(half) for half in (grads[::2], grads[1::2])]
    return {"noise": _relative_noise(grads), "error": abs(halves[0] - halves[1]) / 2}


def _relative_noise(grads: np.ndarray) -> float:
    """Unbiased parts: the squared norm of a mean of n holds 1/n of the variance."""
    variance = np.sum(grads.var(axis=0, ddof=1))
    return float(variance / (np.sum(grads.mean(axis=0) ** 2) - variance / len(grads)))


def measure(repeats: int) -> dict[str, dict[str, dict[str, float]]]:
    """By objective and budget."""
    config = configs.load("configs/mixture.py")
    exact, law = build.exact_denoiser(config)
    with tempfile.TemporaryDirectory() as folder:
        pipeline.run(config, folder, ["denoiser"])
        dataset = build.dataset(config)
        denoiser, params = denoiser_stage.load(config, Workdir(folder, config), dataset)
    found: dict[str, dict[str, dict[str, float]]] = {}
    with bar("gradients", len(contenders()) * len(BUDGETS)) as advance:
        for name, make in contenders().items():
            found[name] = {}
            for pairs in BUDGETS:
                objective = make(pairs)
                model = omega.Network(
                    schedule=denoiser.schedule,
                    encoder=Labels(NUM_CLASSES),
                    support=objective.support,
                )
                found[name][str(pairs)] = noise(
                    objective,
                    pairs,
                    denoiser,
                    params,
                    model,
                    lambda key, c: exact.draw(key, law, c),
                    repeats,
                )
                advance(name)
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=128, help="gradients of each kind")
    repeats = parser.parse_args().repeats
    found = measure(repeats)
    results = provenance("python -m experiments.benchmarks.checks.gradient_noise")
    write_json(
        RESULTS / "benchmark-gradient-noise.json", results | {"repeats": repeats, "noise": found}
    )
    curves = {
        name: (
            [float(pairs) for pairs in by_budget],
            [each["noise"] for each in by_budget.values()],
            [each["error"] for each in by_budget.values()],
        )
        for name, by_budget in found.items()
    }
    figure = plots.method_curves(
        {"": curves},
        xlabel="pairs of denoiser calls for one gradient",
        ylabel=r"$\mathrm{tr\,Cov}(g)\,/\,|\mathrm{E}\,g|^2$",
        log="xy",
    )
    plots.save(figure, ROOT / "docs" / "gradient-noise.png")
    for name, by_budget in found.items():
        print(f"{name:32}", *(f"{pairs}: {each['noise']:.3g}" for pairs, each in by_budget.items()))


if __name__ == "__main__":
    main()
