"""What the benchmarks of Gram statistics have in common: a trained denoiser, and its statistics."""

import argparse
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from experiments import build, pipeline
from experiments import config as configs
from experiments.stages import denoiser as denoiser_stage
from experiments.workdir import Workdir
from lgd import gram, guidance, learn_guidance, omega
from lgd.data import Dataset
from lgd.data.dataset import Split
from lgd.encoders import Labels
from lgd.gram import Statistics
from lgd.objectives import SelfConsistency
from lgd.training import Optimizer
from lgd.types import Denoiser, OmegaFn, Params, Schedule

BATCH = 256  # examples of a step that asks the denoiser
INIT_OMEGA = 0.5  # where every training of these benchmarks starts


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
        times = build.one_step_objective(self.config, "self_consistency").time_law
        return SelfConsistency(time_law=times)

    def network(self, width: int = 64) -> omega.Network:
        """The paper's network."""
        return omega.Network(
            schedule=self.schedule,
            encoder=Labels(self.dataset.num_classes),
            width=width,
            init_omega=INIT_OMEGA,
            support=self.objective.support,
        )

    def collected(self, name: str, data: Split, num_examples: int, *, seed: int) -> Statistics:
        """Statistics of these data at the objective's own law of t, kept in the workdir."""
        folder = self.workdir / "statistics" / f"{name}-{num_examples}"
        gram.collect(
            folder,
            self.denoiser,
            self.params,
            data,
            num_examples=num_examples,
            law=self.objective.time_law,
            data_name=name,
            seed=seed,
        )
        return gram.read(folder)

    def online(
        self,
        optimizer: Optimizer,
        *,
        seed: int = 0,
        on_step: Callable[[int, Params], None] | None = None,
    ) -> OmegaFn:
        """The paper's network, learned by asking the denoiser at every step."""
        return learn_guidance(
            jax.random.key(seed),
            self.denoiser,
            self.params,
            self.dataset.train.x,
            self.dataset.train.labels,
            objective=self.objective,
            model=self.network(),
            optimizer=optimizer,
            batch_size=BATCH,
            start={"start": guidance.constant(INIT_OMEGA)},
            on_step=on_step,
        ).omega_fn

    def loss(self, held_out: Statistics, omega_fn: OmegaFn) -> float:
        """Of the objective, on statistics."""
        schedules = {"it": omega_fn}
        scores = gram.score(held_out, schedules, objective=self.objective, schedule=self.schedule)
        return scores.mean("it")


def parser(description: str | None) -> argparse.ArgumentParser:
    """Flags that all of them take."""
    flags = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--config", required=True, help="for example configs/digits.py")
    flags.add_argument("--workdir", required=True, help="of that config; trained there if need be")
    flags.add_argument("--set", action="append", default=[], help="a field of the config: a.b=1.5")
    flags.add_argument("--name", required=True, help="of the files written, for example digits")
    return flags


def set_up(arguments: argparse.Namespace) -> Setup:
    """Train the denoiser unless the workdir has it."""
    config = configs.load(arguments.config, arguments.set)
    pipeline.run(config, arguments.workdir, ["denoiser"])
    dataset = build.dataset(config)
    with contextlib.closing(Workdir(arguments.workdir, config)) as workdir:
        denoiser, params = denoiser_stage.load(config, workdir, dataset)
    return Setup(config, Path(arguments.workdir), dataset, denoiser, jax.device_put(params))


def command(module: str, arguments: argparse.Namespace) -> str:
    """The command that measures this again, but for the workdir."""
    fields = [f"--set={field}" for field in arguments.set if not field.startswith("data.path")]
    given = [f"--config={arguments.config}", *fields, f"--name={arguments.name}"]
    return " ".join([f"python -m experiments.benchmarks.{module}", *given])
