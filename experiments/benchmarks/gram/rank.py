r"""Does a schedule's held-out consistency loss tell how good its samples are?

    python -m experiments.benchmarks gram_rank --config=configs/digits.py \
        --workdir=runs/digits --name=gram-rank-digits

Every schedule of the standard set, unguided and what the config's methods learn is scored on Gram
matrices of validation data, under several losses, and sampled once; rank correlations of the losses
with two distances of the samples to validation data, over all schedules, within families and among
those that beat no guidance, and the distance of the schedule that each loss would pick. Resumes
where it was interrupted.
"""

import functools
import time
from argparse import Namespace
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

import lgd
from experiments import build, pipeline
from experiments.benchmarks.checks.correlation import rank_correlations
from experiments.benchmarks.gram import setup as gram_setup
from experiments.benchmarks.gram.setup import Setup
from experiments.publish.markdown import number, text
from experiments.publish.study import Study
from experiments.stages import denoiser as denoiser_stage
from experiments.stages import guidance as guidance_stage
from experiments.stages.guidance import Training
from experiments.workdir import Workdir
from lgd import gram, guidance, plots
from lgd.evaluation import Journal, schedule_key
from lgd.exchange.schedules import standard_schedules
from lgd.gram import Particles
from lgd.gram.layout import Members
from lgd.machinery.progress import bar
from lgd.metrics.energy import ClassEnergyDistance
from lgd.metrics.frechet import frechet_distance, moments
from lgd.objectives import (
    ConditionalMarginalConsistency,
    GridLaw,
    SelfConsistency,
    TimeLaw,
)
from lgd.types import OmegaFn

UNGUIDED = "unguided"
METRICS = ("energy_distance", "frechet_distance")  # of samples to validation data
FAMILIES = tuple(dict.fromkeys(schedule.family for schedule in standard_schedules().values()))
GROUP = 8  # members of a group of one class
COLLECTED = (
    (Particles(), 16_384),
    (Particles(members="condition", num_particles=GROUP), 8_192),
)
_INTERVAL = "{value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"
_CORRELATIONS = {
    "Kendall, all": "energy_distance.all.kendall",
    "Fréchet, all": "frechet_distance.all.spearman",
}
COLUMNS = [
    text("name", "held-out loss"),
    *(
        number(f"correlations.energy_distance.{group}.spearman", group, _INTERVAL)
        for group in ("all", *FAMILIES, "useful")
    ),
    *(number(f"correlations.{key}", title, _INTERVAL) for title, key in _CORRELATIONS.items()),
    text("correlations.energy_distance.all.picked", "picks"),
    number("correlations.energy_distance.all.picked_distance", "its distance", ".4f"),
]


class Variant(NamedTuple):
    """One loss: what is compared, at which times, by which power of the distance."""

    members: Members
    churn: float
    grid: bool  # the steps of the sampler, or else the paper's law of times
    beta: float = 1.75
    lam: float = 1.0

    @property
    def name(self) -> str:
        """Name of the loss, as in the table."""
        what = {"copies": "given x0", "condition": "given c"}[self.members]
        times = "sampling steps" if self.grid else "paper's times"
        return f"{what}, {times}, churn {self.churn:g}, β {self.beta:g}, λ {self.lam:g}"

    @property
    def objective(self) -> SelfConsistency | ConditionalMarginalConsistency:
        """Self-consistency, or that of the law given the class."""
        energy: dict[str, Any] = {"beta": self.beta, "lam": self.lam, "churn": self.churn}
        if self.members == "copies":
            return SelfConsistency(**energy)
        return ConditionalMarginalConsistency(group_size=GROUP, **energy)


_STEPS = ((1.0, False), (0.0, False), (0.0, True))  # churn, and whether it is the sampler's grid
_ENERGIES: tuple[tuple[Members, float, float], ...] = (
    *(("copies", 1.75, 1.0), ("copies", 1.0, 1.0), ("copies", 1.75, 0.0)),
    *(("condition", 1.75, 1.0), ("condition", 1.0, 1.0)),
)
VARIANTS = [
    Variant(members, churn, grid, beta, lam)
    for members, beta, lam in _ENERGIES
    for churn, grid in _STEPS
]


def losses(
    setup: Setup, named: Mapping[str, OmegaFn]
) -> dict[Variant, Float[np.ndarray, " schedules"]]:
    """Return the held-out loss of every schedule, less that of unguided, under every variant."""
    collected = {each.members: setup.held_out(number, each) for each, number in COLLECTED}
    differences = {}
    grid = GridLaw(times=tuple(np.asarray(build.times(setup.config)).tolist()))
    with bar("losses", len(VARIANTS)) as advance:
        for variant in VARIANTS:
            scores = gram.score(
                collected[variant.members],
                named,
                objective=variant.objective,
                schedule=setup.schedule,
                law=grid if variant.grid else TimeLaw(),
            )
            differences[variant] = np.asarray([scores.difference(n, UNGUIDED)[0] for n in named])
            advance(variant.name)
    return differences


def distances(setup: Setup, named: Mapping[str, OmegaFn]) -> dict[str, dict[str, float]]:
    """Return how far samples of each schedule are from validation data; measured once."""
    config, real = setup.config, setup.dataset.validation
    workdir, generator = Workdir(setup.workdir, config), setup.generator()
    classifier, params = denoiser_stage.load_classifier(config, workdir, setup.dataset)
    features = jax.jit(lambda x: classifier.apply(params, x)[1])
    of_real = moments(np.asarray(features(jnp.asarray(real.x))))
    energy = ClassEnergyDistance(real, setup.dataset.num_classes)
    journal, n, quality = Journal(setup.workdir / "rank-measured.jsonl"), setup.num_per_class, {}

    def measured(omega_fn: OmegaFn, seed: int) -> dict[str, float]:
        x = generator(omega_fn, n, seed=seed)
        of_samples = moments(np.asarray(features(x.reshape(-1, *x.shape[2:]))))
        values = (float(jnp.mean(energy(x))), frechet_distance(of_samples, of_real))
        return dict(zip(METRICS, values, strict=True))

    with bar("sample", len(named)) as advance:
        for name, omega_fn in named.items():
            key = f"{schedule_key(omega_fn)} n={n}"
            runs = [
                journal(f"{key} seed={seed}", functools.partial(measured, omega_fn, seed))
                for seed in range(config.evaluation.validation_seeds)
            ]
            quality[name] = {m: float(np.mean([run[m] for run in runs])) for m in METRICS}
            advance(name)
    return quality


def compare(
    names: list[str], loss: Float[np.ndarray, " n"], quality: Float[np.ndarray, " n"]
) -> dict[str, Any]:
    """Return correlations over all schedules and within groups, and what the least loss picks.

    Families have unguided among them. The useful ones are those whose samples beat unguided ones;
    of fewer than three there is no correlation.
    """
    families = np.asarray([name.partition("(")[0] for name in names])
    unguided = families == UNGUIDED
    groups = {"all": np.full(len(names), True)}
    groups |= {family: (families == family) | unguided for family in FAMILIES}
    groups["useful"] = quality < quality[unguided][0]
    comparisons = {}
    for group, members in groups.items():
        places = np.flatnonzero(members)
        if len(places) < 3:
            continue
        picked, best = (places[np.argmin(values[members])] for values in (loss, quality))
        comparisons[group] = rank_correlations(loss[members], quality[members]) | {
            "count": len(places),
            "picked": names[picked],
            "picked_distance": float(quality[picked]),
            "best": names[best],
            "best_distance": float(quality[best]),
        }
    return comparisons


def measure(options: Namespace) -> dict[str, Any]:
    """Return losses, distances and correlations of all schedules under all variants."""
    setup = gram_setup.set_up(options)
    pipeline.run(setup.config, options.workdir, ["collect", "guidance"])
    named: dict[str, OmegaFn] = {UNGUIDED: guidance.constant(0.0), **standard_schedules()}
    for method in setup.config.guidance.methods:
        named[f"learned:{method}"] = _learned(setup, method)
    start = time.perf_counter()
    by_variant = losses(setup, named)
    scored, quality = time.perf_counter(), distances(setup, named)
    columns = {m: np.asarray([each[m] for each in quality.values()]) for m in METRICS}
    rows: list[dict[str, Any]] = [
        {
            "name": variant.name,
            **variant._asdict(),
            "losses": loss.tolist(),
            "correlations": {m: compare(list(named), loss, columns[m]) for m in METRICS},
        }
        for variant, loss in by_variant.items()
    ]
    schedules = [{"name": name, "quality": each} for name, each in quality.items()]
    return {
        "seconds": {"losses": scored - start, "samples": time.perf_counter() - scored},
        "num_examples": {each.members: number for each, number in COLLECTED},
        "schedules": schedules,
        "columns": COLUMNS,
        "rows": rows,
        "note": _note(rows[0]["correlations"][METRICS[0]], schedules),
    }


def _learned(setup: Setup, method: str) -> OmegaFn:
    """Guidance that a method learned, as selected or, in a run not evaluated, after all steps."""
    file = setup.workdir / "guidance" / f"{method}.safetensors"
    if file.exists():
        return lgd.load(file)
    training, workdir = Training(method), Workdir(setup.workdir, setup.config)
    step = guidance_stage.snapshot_steps(setup.config, training)[-1]
    return guidance_stage.load(setup.config, workdir, setup.dataset, training, step)


def _note(correlations: Mapping[str, Any], schedules: list[dict[str, Any]]) -> str:
    best, useful = correlations["all"], correlations.get("useful", {"count": 0})
    unguided = next(each for each in schedules if each["name"] == UNGUIDED)
    return (
        f"Energy distance of the best of {best['count']} schedules, {best['best']}: "
        f"{best['best_distance']:.4f}; unguided {unguided['quality']['energy_distance']:.4f}. "
        "Spearman's correlations but where it says Kendall, in brackets 95% intervals from "
        f"resampling schedules; useful: the {useful['count']} whose samples beat unguided ones."
    )


def figures(results: Mapping[str, Any]) -> dict[str, Figure]:
    """Draw the energy distance over every loss."""
    panels = {}
    for row in results["rows"]:
        correlations = row["correlations"]["energy_distance"]["all"]
        rho, tau = correlations["spearman"]["value"], correlations["kendall"]["value"]
        title = row["name"].replace(", β", "\nβ")
        panels[f"{title}\n" + rf"$\rho$ {rho:.2f}, $\tau$ {tau:.2f}"] = (
            row["losses"],
            [each["quality"]["energy_distance"] for each in results["schedules"]],
        )
    figure = plots.rank_scatter(
        panels,
        [each["name"] for each in results["schedules"]],
        xlabel="held-out loss less that of unguided",
        ylabel="energy distance of samples to validation data",
    )
    return {"": figure}


STUDY = Study(measure=measure, arguments=gram_setup.arguments, figures=figures)
