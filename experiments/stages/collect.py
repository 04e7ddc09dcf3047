"""Stage 2: Gram statistics of the frozen denoiser, where the config asks for them."""

from pathlib import Path

from ml_collections import ConfigDict

from experiments import build
from experiments.stages import denoiser as denoiser_stage
from experiments.workdir import Workdir
from lgd import statistics
from lgd.data import Dataset
from lgd.statistics.layout import Members

HELD_OUT = "held_out"


def run(config: ConfigDict, workdir: Workdir, dataset: Dataset) -> None:
    """Collect what is not there yet: for every kind of members a method needs, and held out."""
    if config.statistics.num_examples == 0:
        return
    for members in needed(config):
        _collect(config, workdir, dataset, f"train-{members}", members)
    _collect(config, workdir, dataset, HELD_OUT, "copies")


def needed(config: ConfigDict) -> list[Members]:
    """Members that the one-step methods compare."""
    each = {build.members(method) for method in config.guidance.methods if method != "trajectory"}
    return sorted(each)


def folder(workdir: Workdir, name: str) -> Path:
    """Where a collection lies: "train-<members>" or "held_out"."""
    return workdir.path / "statistics" / name


def _collect(
    config: ConfigDict, workdir: Workdir, dataset: Dataset, name: str, members: Members
) -> None:
    denoiser, params = denoiser_stage.load(config, workdir, dataset)
    settings, held_out = config.statistics, name == HELD_OUT
    one_step = config.guidance.one_step
    with workdir.timed(f"statistics/{name}"):
        statistics.collect(
            folder(workdir, name),
            denoiser,
            params,
            dataset.validation if held_out else dataset.train,
            num_examples=settings.num_held_out if held_out else settings.num_examples,
            members=members,
            num_particles=(one_step.num_particles if members == "copies" else one_step.group_size),
            data_name=f"{config.data.name} {'validation' if held_out else 'train'}",
            batch_size=settings.batch_size,
            shard_examples=settings.shard_examples,
            seed=config.seed + held_out,
            mesh=build.mesh(config),
        )
