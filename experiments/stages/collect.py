"""Stage 2: Gram statistics of the frozen denoiser, where the config asks for them."""

from pathlib import Path

from ml_collections import ConfigDict

from experiments import build, build_guidance
from experiments.methods import ONE_STEP
from experiments.stages import denoiser as denoiser_stage
from experiments.workdir import Workdir, throughput
from lgd import gram
from lgd.data import Dataset
from lgd.gram import store
from lgd.objectives import OneStep
from lgd.training import Trainer
from lgd.types import Denoiser, Params

HELD_OUT = "held_out"


def run(config: ConfigDict, workdir: Workdir, dataset: Dataset) -> None:
    """Collect what is not there yet: for every kind of members a method needs, and held out."""
    if config.statistics.num_examples == 0:
        return
    wanted = needed(config) | {
        HELD_OUT: build_guidance.one_step_objective(config, "self_consistency")
    }
    missing = {
        name: objective
        for name, objective in wanted.items()
        if not workdir.is_noted(folder(workdir, name) / store.MANIFEST)
    }
    if missing:
        frozen = denoiser_stage.load(config, workdir, dataset)
        for name, objective in missing.items():
            _collect(config, workdir, dataset, frozen, name, objective)


def needed(config: ConfigDict) -> dict[str, OneStep]:
    """Collections of training data by name, each with an objective that it must serve."""
    methods = sorted(set(config.guidance.methods).intersection(ONE_STEP))
    objectives = [build_guidance.one_step_objective(config, method) for method in methods]
    return {name_for(objective): objective for objective in objectives}


def name_for(objective: OneStep) -> str:
    """The collection of training data that an objective learns from: "train-<members>"."""
    return f"train-{objective.members[0]}"


def folder(workdir: Workdir, name: str) -> Path:
    """The folder of a collection."""
    return workdir.path / "statistics" / name


def _collect(
    config: ConfigDict,
    workdir: Workdir,
    dataset: Dataset,
    frozen: tuple[Denoiser, Params],
    name: str,
    objective: OneStep,
) -> None:
    settings, held_out = config.statistics, name == HELD_OUT
    stage, size = f"statistics/{name}", settings.batch_size
    with (
        workdir.timed(stage),
        throughput.measured(config, workdir, stage, size, "examples") as tick,
    ):
        gram.collect(
            folder(workdir, name),
            *frozen,
            denoiser_stage.taken(config, workdir, dataset, "validation" if held_out else "train"),
            num_examples=settings.num_held_out if held_out else settings.num_examples,
            particles=gram.Particles(
                members=objective.members[0], num_particles=objective.num_members
            ),
            data_name=f"{config.data.name} {'validation' if held_out else 'train'}",
            shard_examples=settings.shard_examples,
            seed=config.seed + held_out,
            trainer=Trainer(
                batch_size=settings.batch_size,
                mesh=build.mesh(config),
                on_step=lambda step, params: tick(),
                check=False,  # stage 1 looks at networks that are not ours
            ),
        )
    workdir.note_folder(folder(workdir, name))
