"""What the benchmarks of the Gram form share: a trained denoiser, and Gram matrices of it."""

import contextlib
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from experiments import build, build_guidance, pipeline
from experiments import config as configs
from experiments.console import local_path
from experiments.publish.study import Add
from experiments.stages import denoiser as denoiser_stage
from experiments.workdir import Workdir
from lgd import gram, guidance, learn_guidance, omega
from lgd.data import Dataset
from lgd.data.dataset import Split
from lgd.encoders import Labels
from lgd.evaluation import Generator
from lgd.gram import Fitted, Lane, Particles, Statistics
from lgd.objectives import SelfConsistency
from lgd.training import Optimizer, Trainer
from lgd.types import Denoiser, OmegaFn, Params, Schedule

BATCH = 256  # examples of a step that asks the denoiser
INIT_OMEGA = 0.5  # where every training of these benchmarks starts
WAYS = {"online": "asked at every step", "gram": "asked once"}  # how the denoiser is used


class Setup(NamedTuple):
    """A frozen denoiser and the data it was trained on."""

    config: ConfigDict
    workdir: Path
    dataset: Dataset
    denoiser: Denoiser
    params: Params

    @property
    def schedule(self) -> Schedule:
        """The forward process."""
        return self.denoiser.schedule

    @property
    def objective(self) -> SelfConsistency:
        """The paper's self-consistency, with the config's times."""
        times = build_guidance.one_step_objective(self.config, "self_consistency").time_law
        return SelfConsistency(time_law=times)

    def network(self, width: int = 64) -> omega.Network:
        """Return the paper's network."""
        return omega.Network(
            schedule=self.schedule,
            encoder=Labels(self.dataset.num_classes),
            width=width,
            init_omega=INIT_OMEGA,
            support=self.objective.support,
        )

    def training(self, num_examples: int) -> Statistics:
        """Return Gram matrices of training data at the objective's times."""
        particles = Particles(law=self.objective.time_law)
        return self._collected("train", self.dataset.train, num_examples, particles, seed=0)

    def held_out(self, num_examples: int, particles: Particles | None = None) -> Statistics:
        """Return Gram matrices of validation data, by default at the objective's times."""
        name = "validation" if particles is None else f"rank-{particles.members}"
        particles = particles or Particles(law=self.objective.time_law)
        return self._collected(name, self.dataset.validation, num_examples, particles, seed=1)

    def _collected(
        self, name: str, data: Split, num_examples: int, particles: Particles, *, seed: int
    ) -> Statistics:
        """Gram matrices, kept in the workdir."""
        folder = self.workdir / "statistics" / f"{name}-{num_examples}"
        gram.collect(
            folder,
            self.denoiser,
            self.params,
            data,
            num_examples=num_examples,
            particles=particles,
            data_name=name,
            seed=seed,
            trainer=Trainer(check=False),
        )
        return gram.read(folder)

    def fits(
        self,
        data: Statistics,
        rates: Sequence[float],
        seeds: Sequence[int],
        num_steps: int,
        held_out: Statistics | None = None,
    ) -> list[Fitted]:
        """Return the paper's network, learned from Gram matrices, for every rate and seed.

        Args:
          data: what is learned from.
          rates: learning rates.
          seeds: of the parameters, the batches and the noise.
          num_steps: of every fit.
          held_out: what is judged on.
        """
        lanes = [
            Lane(objective=self.objective, model=self.network(), learning_rate=rate, seed=seed)
            for rate in rates
            for seed in seeds
        ]
        trainer = fit_trainer(Optimizer(num_steps=num_steps, ema_decay=0.98))
        return gram.sweep(data, lanes, schedule=self.schedule, trainer=trainer, held_out=held_out)

    def online(
        self,
        optimizer: Optimizer,
        *,
        seed: int = 0,
        on_step: Callable[[int, Params], None] | None = None,
    ) -> OmegaFn:
        """Return the paper's network, learned by asking the denoiser at every step."""
        return learn_guidance(
            jax.random.key(seed),
            self.denoiser,
            self.params,
            self.dataset.train.x,
            self.dataset.train.c,
            objective=self.objective,
            model=self.network(),
            start={"start": guidance.constant(INIT_OMEGA)},
            trainer=Trainer(optimizer=optimizer, batch_size=BATCH, on_step=on_step),
        ).omega_fn

    def generator(self) -> Generator:
        """Return the sampler, deterministic on the config's grid."""
        return Generator(
            denoiser=self.denoiser,
            params=self.params,
            shape=self.dataset.shape,
            conditions=self.dataset.conditions,
            times=build.times(self.config),
        )

    @property
    def num_per_class(self) -> int:
        """Samples of a class."""
        return self.config.evaluation.num_samples // self.dataset.num_classes

    def loss(self, held_out: Statistics, omega_fn: OmegaFn) -> float:
        """Return the loss of the objective on Gram matrices."""
        schedules = {"it": omega_fn}
        scores = gram.score(held_out, schedules, objective=self.objective, schedule=self.schedule)
        return scores.mean("it")


def fit_trainer(optimizer: Optimizer, *, progress: bool = True) -> Trainer:
    """Return the settings of a fit on Gram matrices: a report after every 50 steps."""
    return Trainer(optimizer=optimizer, log_every=50, progress=progress)


def arguments(add: Add) -> None:
    """Add the arguments that all of them take."""
    add("--config", required=True, help="for example configs/digits.py")
    trained = "of that config; the denoiser is trained there if need be"
    add("--workdir", type=local_path, required=True, help=trained)
    add("--set", action="append", default=[], help="a field of the config: a.b=1.5")


def set_up(options: Namespace) -> Setup:
    """Return the denoiser of a workdir; it is trained unless the workdir has it."""
    config = configs.load(options.config, options.set)
    pipeline.run(config, options.workdir, ["denoiser"])
    dataset = build.dataset(config)
    with contextlib.closing(Workdir(options.workdir, config)) as workdir:
        denoiser, params = denoiser_stage.load(config, workdir, dataset)
    return Setup(config, Path(options.workdir), dataset, denoiser, jax.device_put(params))
