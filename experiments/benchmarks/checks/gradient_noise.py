"""Noise of every objective's gradient at equal cost, on the 2-D mixture.

    python -m experiments.benchmarks gradient_noise --name=gradient-noise   # 4 minutes on an H100

The paper prefers self-consistency to matching marginals for its gradient of low variance. Here the
gradient with respect to the paper's network at its start, omega = 1, on an under-trained denoiser:
its total variance over the squared norm of its mean, ``tr Cov(g) / |E g|^2``, for batches that cost
equally many pairs of denoiser calls. A gradient through K unrolled steps counts 3 K pairs a
particle.
"""

import tempfile
from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from matplotlib.figure import Figure

from experiments import build, pipeline
from experiments import config as configs
from experiments.publish.markdown import number, text
from experiments.publish.study import Add, Study
from experiments.stages import denoiser as denoiser_stage
from experiments.workdir import Workdir
from lgd import objectives, omega, plots
from lgd.encoders import Labels
from lgd.learn import omega_loss
from lgd.machinery.progress import bar
from lgd.objectives import Objective
from lgd.types import Batch, Denoiser, Params, PRNGKey

BUDGETS = (1024, 4096, 16384)  # pairs of denoiser calls for one gradient
TIMES = tuple(np.linspace(1.0, 0.0, 11).tolist())  # of the trajectory, K = 10
NUM_CLASSES = 8
COLUMNS = [
    text("method", "objective"),
    *(
        number(str(pairs), f"noise at {pairs:,} pairs", "{noise:.3g} ± {error:.2g}")
        for pairs in BUDGETS
    ),
]
Draw = Callable[[PRNGKey, Array], Array]  # (key, labels) -> real x0


class Contender(NamedTuple):
    """An objective, and the conditions that make it call the denoiser on so many inputs."""

    objective: Objective
    num_conditions: int | None = None  # None: every class once

    def draw(self, key: PRNGKey, draw: Draw) -> Batch:
        """Return fresh real data."""
        label_key, x0_key = jax.random.split(key)
        c = jnp.arange(NUM_CLASSES, dtype=jnp.int32)
        if self.num_conditions is not None:
            c = jax.random.randint(label_key, (self.num_conditions,), 0, NUM_CLASSES)
        n = self.objective.group_size
        if n is None:
            return Batch(draw(x0_key, c), c)
        c = jnp.repeat(c, n)
        return Batch(draw(x0_key, c).reshape(-1, n, 2), c.reshape(-1, n))


def contenders(pairs: int) -> dict[str, Contender]:
    """Return objectives by name, for so many pairs of denoiser calls."""
    particles = max(2, pairs // (3 * (len(TIMES) - 1) * NUM_CLASSES))
    consistency, l2 = objectives.SelfConsistency(), objectives.l2()
    matching = objectives.GuidedScoreMatching()
    conditional = objectives.ConditionalMarginalConsistency()
    trajectory = objectives.Trajectory(times=TIMES, num_particles=particles, num_targets=particles)
    return {
        "learned:self_consistency": Contender(consistency, pairs // consistency.num_particles),
        "learned:l2": Contender(l2, pairs // l2.num_particles),
        "learned:guided_score_matching": Contender(matching, pairs // matching.num_particles),
        "learned:conditional_marginal": Contender(conditional, pairs // conditional.group_size),
        "learned:marginal": Contender(objectives.MarginalConsistency(), pairs),
        "learned:trajectory": Contender(trajectory),
    }


def noise(
    contender: Contender, denoiser: Denoiser, params: Params, draw: Draw, repeats: int
) -> dict[str, float]:
    """Return ``tr Cov(g) / |E g|^2`` over independent gradients, and its error by halves of them.

    Args:
      contender: the objective.
      denoiser: the frozen model.
      params: its arrays.
      draw: draws real data.
      repeats: gradients of each kind.
    """
    objective, encoder = contender.objective, Labels(NUM_CLASSES)
    model = omega.Network(schedule=denoiser.schedule, encoder=encoder, support=objective.support)
    omega_params = model.init(jax.random.key(0), jnp.arange(NUM_CLASSES))
    loss = omega_loss(objective, model, denoiser)

    @jax.jit
    def gradient(key: PRNGKey) -> Float[Array, " p"]:
        data_key, loss_key = jax.random.split(key)
        batch = contender.draw(data_key, draw)
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


def measure(options: Namespace) -> dict[str, Any]:
    """Return the noise of every objective, by budget."""
    config = configs.load("configs/mixture.py")
    exact, law = build.exact_denoiser(config)
    with tempfile.TemporaryDirectory() as folder:
        pipeline.run(config, folder, ["denoiser"])
        dataset = build.dataset(config)
        denoiser, params = denoiser_stage.load(config, Workdir(folder, config), dataset)

    def draw(key: PRNGKey, c: Array) -> Array:
        return exact.draw(key, law, c)

    rows: dict[str, dict[str, Any]] = {name: {"method": name} for name in contenders(BUDGETS[0])}
    with bar("gradients", len(rows) * len(BUDGETS)) as advance:
        for pairs in BUDGETS:
            for name, contender in contenders(pairs).items():
                rows[name][str(pairs)] = noise(contender, denoiser, params, draw, options.repeats)
                advance(name)
    return {"repeats": options.repeats, "columns": COLUMNS, "rows": list(rows.values())}


def figures(results: Mapping[str, Any]) -> dict[str, Figure]:
    """Draw the noise over the budget."""
    curves = {}
    for row in results["rows"]:
        cells = [row[str(pairs)] for pairs in BUDGETS]
        noises, errors = [each["noise"] for each in cells], [each["error"] for each in cells]
        curves[row["method"]] = (list(map(float, BUDGETS)), noises, errors)
    figure = plots.method_curves(
        {"": curves},
        xlabel="pairs of denoiser calls for one gradient",
        ylabel=r"$\mathrm{tr\,Cov}(g)\,/\,|\mathrm{E}\,g|^2$",
        log="xy",
    )
    return {"": figure}


def arguments(add: Add) -> None:
    """Add the arguments of this benchmark."""
    add("--repeats", type=int, default=128, help="gradients of each kind")


STUDY = Study(measure=measure, arguments=arguments, figures=figures)
