r"""Does a schedule's held-out consistency loss tell how good its samples are?

    python -m experiments.benchmarks.gram.rank --config=configs/digits.py \
        --workdir=runs/digits --name=digits

Every schedule of the standard set, unguided and what the config's methods learn is scored on
statistics of validation data, under several losses, and sampled once; rank correlations of the
losses with two distances of the samples to validation data, over all schedules, within families and
among those that beat no guidance, and the distance of the schedule that each loss would pick.
Resumes where it was interrupted. Writes experiments/results/gram-rank-NAME.json and
docs/gram-rank-NAME.png.
"""

import dataclasses
import functools
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from experiments import build, pipeline
from experiments.benchmarks.checks.correlation import rank_correlations
from experiments.benchmarks.gram import setup as gram_setup
from experiments.benchmarks.gram.setup import Setup
from experiments.journal import Journal, schedule_key
from experiments.publish.tables import RESULTS, ROOT
from experiments.schedule_files import standard_schedules
from experiments.stages import denoiser as denoiser_stage
from experiments.studies import learned_schedules
from experiments.workdir import Workdir, write_json
from experiments.workdir.provenance import provenance
from lgd import gram, guidance, plots
from lgd.evaluation import Generator
from lgd.gram import Statistics
from lgd.gram.layout import Members
from lgd.machinery.progress import bar
from lgd.metrics.energy import ClassEnergyDistance
from lgd.metrics.frechet import frechet_distance, moments
from lgd.objectives import (
    ConditionalMarginalConsistency,
    GridLaw,
    SelfConsistency,
    StepLaw,
    TimeLaw,
)
from lgd.types import OmegaFn

UNGUIDED = "unguided"
METRICS = ("energy_distance", "frechet_distance")  # of samples to validation data
FAMILIES = ("constant", "limited_interval", "clamp_linear")
GROUP = 8  # members of a group of one class
NUM_EXAMPLES: dict[Members, int] = {"copies": 16_384, "condition": 8_192}
BETA = 1.75


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """One loss: what is compared, at which times, by which power of the distance."""

    members: Members
    churn: float
    grid: bool  # the steps of the sampler, or else the paper's law of times
    beta: float = BETA
    lam: float = 1.0

    @property
    def name(self) -> str:
        """As a title."""
        what = {"copies": "given x0", "condition": "given c"}[self.members]
        times = "sampling steps" if self.grid else "paper's times"
        return f"{what}, {times}, churn {self.churn:g}\nβ {self.beta:g}, λ {self.lam:g}"

    def objective(self) -> SelfConsistency | ConditionalMarginalConsistency:
        """Self-consistency, or that of the law given the class."""
        energy: dict[str, Any] = {"beta": self.beta, "lam": self.lam, "churn": self.churn}
        if self.members == "copies":
            return SelfConsistency(**energy)
        return ConditionalMarginalConsistency(group_size=GROUP, **energy)

    def law(self, setup: Setup) -> StepLaw:
        """Of (s, t)."""
        if self.grid:
            return GridLaw(times=tuple(np.asarray(build.times(setup.config)).tolist()))
        return TimeLaw()


def variants() -> list[Variant]:
    """Three laws of a step, by what is compared and the energy's settings."""
    energies: dict[Members, list[dict[str, Any]]] = {
        "copies": [{}, {"beta": 1.0}, {"lam": 0.0}],
        "condition": [{}, {"beta": 1.0}],
    }
    steps: list[dict[str, Any]] = [
        {"grid": False, "churn": 1.0},
        {"grid": False, "churn": 0.0},
        {"grid": True, "churn": 0.0},
    ]
    return [
        Variant(members=members, **step, **energy)
        for members, each in energies.items()
        for energy in each
        for step in steps
    ]


def collect(setup: Setup, members: Members) -> Statistics:
    """Held-out statistics, kept in the workdir."""
    folder = setup.workdir / "statistics" / f"rank-{members}"
    gram.collect(
        folder,
        setup.denoiser,
        setup.params,
        setup.dataset.validation,
        num_examples=NUM_EXAMPLES[members],
        members=members,
        num_particles=GROUP if members == "condition" else 4,
        data_name="validation",
        seed=1,
    )
    return gram.read(folder)


def losses(
    setup: Setup, named: Mapping[str, OmegaFn]
) -> dict[Variant, Float[np.ndarray, " schedules"]]:
    """Held-out loss of every schedule, less that of unguided, under every variant."""
    collected = {members: collect(setup, members) for members in NUM_EXAMPLES}
    found = {}
    with bar("losses", len(variants())) as advance:
        for variant in variants():
            scores = gram.score(
                collected[variant.members],
                named,
                objective=variant.objective(),
                schedule=setup.schedule,
                law=variant.law(setup),
            )
            found[variant] = np.asarray([scores.difference(n, UNGUIDED)[0] for n in named])
            advance(variant.name.replace("\n", ", "))
    return found


class Quality:
    """Distances of a schedule's samples to validation data, means over seeds; measured once."""

    def __init__(self, setup: Setup) -> None:
        config, dataset = setup.config, setup.dataset
        workdir = Workdir(setup.workdir, config)
        classifier, params = denoiser_stage.load_classifier(config, workdir, dataset)
        self._features = jax.jit(lambda x: classifier.apply(params, x)[1])
        self._real = ClassEnergyDistance(dataset.validation, dataset.num_classes)
        self._moments = moments(np.asarray(self._features(jnp.asarray(dataset.validation.x))))
        self._per_class = config.evaluation.num_samples // dataset.num_classes
        self._seeds = range(config.evaluation.validation_seeds)
        self._journal = Journal(setup.workdir / "rank-measured.jsonl")
        self._generator = Generator(
            denoiser=setup.denoiser,
            params=setup.params,
            shape=dataset.shape,
            num_classes=dataset.num_classes,
            times=build.times(config),
        )

    def __call__(self, omega_fn: OmegaFn) -> dict[str, float]:
        """By metric."""
        generator = self._generator
        schedule = schedule_key(omega_fn, generator.times, generator.num_classes)
        runs = [
            self._journal(
                f"{schedule} n={self._per_class} seed={seed}",
                functools.partial(self._measure, omega_fn, seed),
            )
            for seed in self._seeds
        ]
        return {metric: float(np.mean([run[metric] for run in runs])) for metric in METRICS}

    def _measure(self, omega_fn: OmegaFn, seed: int) -> dict[str, float]:
        x = self._generator(omega_fn, self._per_class, seed=seed)
        mine = moments(np.asarray(self._features(x.reshape(-1, *x.shape[2:]))))
        return {
            "energy_distance": float(jnp.mean(self._real(x))),
            "frechet_distance": frechet_distance(mine, self._moments),
        }


def compare(
    names: list[str], loss: Float[np.ndarray, " n"], quality: Float[np.ndarray, " n"]
) -> dict[str, Any]:
    """Correlations over all schedules and within groups, and what the least loss picks.

    Families have unguided among them. The useful ones are those whose samples beat unguided ones;
    of fewer than three there is no correlation.
    """
    families = np.asarray([name.partition("(")[0] for name in names])
    unguided = families == UNGUIDED
    groups = {"all": np.full(len(names), True)}
    groups |= {family: (families == family) | unguided for family in FAMILIES}
    groups["useful"] = quality < quality[unguided][0]
    return {
        group: rank_correlations(loss[mine], quality[mine])
        | {
            "count": int(mine.sum()),
            "picked": names[np.flatnonzero(mine)[np.argmin(loss[mine])]],
            "picked_distance": float(quality[mine][np.argmin(loss[mine])]),
            "best": names[np.flatnonzero(mine)[np.argmin(quality[mine])]],
            "best_distance": float(quality[mine].min()),
        }
        for group, mine in groups.items()
        if mine.sum() > 2
    }


def table(results: Mapping) -> str:
    """Spearman's correlation of every loss with the energy distance, and what the loss picks."""
    groups = ("all", *FAMILIES, "useful")
    lines = [
        f"| held-out loss | {' | '.join(groups)} | Kendall, all "
        "| Fréchet, all | picks | its distance |",
        "|---|" + "---:|" * 7 + "---|---:|",
    ]
    for entry in results["variants"]:
        energy, frechet = (entry["correlations"][metric] for metric in METRICS)
        cells = [_cell(energy[group]["spearman"]) if group in energy else "" for group in groups]
        cells += [_cell(energy["all"]["kendall"]), _cell(frechet["all"]["spearman"])]
        picked = energy["all"]
        cells += [picked["picked"], f"{picked['picked_distance']:.4f}"]
        lines.append(f"| {entry['name']} | {' | '.join(cells)} |")
    best = results["variants"][0]["correlations"]["energy_distance"]["all"]
    useful = results["variants"][0]["correlations"]["energy_distance"].get("useful", {"count": 0})
    unguided = next(each for each in results["schedules"] if each["name"] == UNGUIDED)
    lines.append(
        f"\nEnergy distance of the best of {best['count']} schedules, {best['best']}: "
        f"{best['best_distance']:.4f}; unguided {unguided['quality']['energy_distance']:.4f}. "
        "Spearman's correlations but where it says Kendall, in brackets 95% intervals from "
        f"resampling schedules; useful: the {useful['count']} whose samples beat unguided ones.\n"
    )
    return "\n".join(lines)


def _cell(measured: Mapping) -> str:
    low, high = measured["interval"]
    return f"{measured['value']:.2f} [{low:.2f}, {high:.2f}]"


def study(setup: Setup) -> dict[str, Any]:
    """Everything that is written."""
    named: dict[str, OmegaFn] = {UNGUIDED: guidance.constant(0.0), **standard_schedules()}
    for method in setup.config.guidance.methods:
        named[f"learned:{method}"] = learned_schedules.load(str(setup.workdir), method)
    names, start = list(named), time.perf_counter()
    by_variant = losses(setup, named)
    scored, measure = time.perf_counter(), Quality(setup)
    quality = []
    with bar("sample", len(named)) as advance:
        for name, omega_fn in named.items():
            quality.append(measure(omega_fn))
            advance(name)
    columns = {metric: np.asarray([each[metric] for each in quality]) for metric in METRICS}
    return {
        "seconds": {"losses": scored - start, "samples": time.perf_counter() - scored},
        "num_examples": NUM_EXAMPLES,
        "schedules": [
            {"name": name, "quality": each} for name, each in zip(names, quality, strict=True)
        ],
        "variants": [
            {
                "name": variant.name.replace("\n", ", "),
                **dataclasses.asdict(variant),
                "losses": loss.tolist(),
                "correlations": {
                    metric: compare(names, loss, columns[metric]) for metric in METRICS
                },
            }
            for variant, loss in by_variant.items()
        ],
    }


def draw(results: Mapping, name: str) -> None:
    """docs/gram-rank-NAME.png."""
    energy = [each["quality"]["energy_distance"] for each in results["schedules"]]
    panels = {}
    for entry in results["variants"]:
        found = entry["correlations"]["energy_distance"]["all"]
        title = Variant(
            **{field.name: entry[field.name] for field in dataclasses.fields(Variant)}
        ).name
        rho, tau = found["spearman"]["value"], found["kendall"]["value"]
        panels[f"{title}\n" + rf"$\rho$ {rho:.2f}, $\tau$ {tau:.2f}"] = (entry["losses"], energy)
    figure = plots.rank_scatter(
        panels,
        [each["name"] for each in results["schedules"]],
        xlabel="held-out loss less that of unguided",
        ylabel="energy distance of samples to validation data",
    )
    plots.save(figure, ROOT / "docs" / f"gram-rank-{name}.png")


def main() -> None:
    """Command line."""
    arguments = gram_setup.parser(__doc__).parse_args()
    setup = gram_setup.set_up(arguments)
    pipeline.run(setup.config, arguments.workdir, ["collect", "guidance"])
    results = provenance(gram_setup.command("gram_rank", arguments)) | study(setup)
    write_json(RESULTS / f"gram-rank-{arguments.name}.json", results)
    draw(results, arguments.name)
    print(table(results))


if __name__ == "__main__":
    main()
