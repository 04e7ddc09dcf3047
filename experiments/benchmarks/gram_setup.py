"""What the benchmarks of Gram statistics have in common: a trained denoiser, and its statistics."""

import argparse
import contextlib
from pathlib import Path
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from experiments import build, pipeline
from experiments import config as configs
from experiments.stages import denoiser as denoiser_stage
from experiments.workdir import Workdir
from lgd import objectives, omega, statistics
from lgd.data import Dataset
from lgd.data.dataset import Split
from lgd.objectives import SelfConsistency
from lgd.statistics import Statistics
from lgd.types import Denoiser, Params, Schedule

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
        one_step = self.config.guidance.one_step
        law = objectives.TimeLaw(s_min=one_step.s_min, delta=one_step.delta, zeta=one_step.zeta)
        return SelfConsistency(time_law=law)

    def network(self, width: int = 64) -> omega.Network:
        """The paper's network."""
        return omega.Network(
            schedule=self.schedule,
            num_classes=self.dataset.num_classes,
            width=width,
            init_omega=INIT_OMEGA,
            support=self.objective.support,
        )

    def collected(self, name: str, data: Split, num_examples: int, *, seed: int) -> Statistics:
        """Statistics of these data at the objective's own law of t, kept in the workdir."""
        folder = self.workdir / "statistics" / f"{name}-{num_examples}"
        statistics.collect(
            folder,
            self.denoiser,
            self.params,
            data,
            num_examples=num_examples,
            law=self.objective.time_law,
            data_name=name,
            seed=seed,
        )
        return statistics.read(folder)


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
