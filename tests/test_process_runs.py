"""A run of the launcher in two processes is one run."""

import json
import sys

import numpy as np
import pytest

from experiments import config as configs
from experiments import pipeline
from experiments.workdir import read_lines
from tests.run_two import run_two

pytestmark = pytest.mark.usefixtures("quick_compilation")
QUICK = (  # of configs/mixture.py
    "data.num_train=160",
    "data.num_validation=80",
    "data.num_test=80",
    "denoiser.num_steps.under=4",
    "denoiser.width=8",
    "denoiser.depth=1",
    "denoiser.batch_size=16",
    "sampling.num_steps=3",
    "guidance.methods=()",
    "evaluation.num_samples=40",
    "evaluation.num_screening=40",
    "evaluation.num_finalists=1",
    "evaluation.validation_seeds=1",
    "evaluation.constant_weights=0,0.5,1",
    "evaluation.interval_weights=0.5",
    "evaluation.interval_lower=0.2",
    "evaluation.interval_upper=0.8",
    "evaluation.clamp_linear_scales=0.8",
    "training.log_every=1",
)


def launcher(folder, *overrides):
    """Arguments of a run whose processes see different folders."""
    argv = [sys.executable, "-m", "experiments.run", "--config=configs/mixture.py"]
    argv += [f"--config.{override}" for override in (*QUICK, *overrides)]
    return lambda index: [*argv, "--stages=denoiser,evaluate", f"--workdir={folder / str(index)}"]


def by_hand(argv):
    return lambda address, index: [
        *(*argv(index), f"--coordinator={address}"),
        *("--num_processes=2", f"--process_id={index}"),
    ]


def by_slurm(argv):
    """Its variables, as `srun` sets them."""
    return lambda address, index: [
        *("env", "SLURM_JOB_ID=1", "SLURM_STEP_NODELIST=localhost", "SLURM_NTASKS=2"),
        *(f"SLURM_PROCID={index}", f"SLURM_LOCALID={index}"),
        f"JAX_COORDINATOR_PORT={address.partition(':')[2]}",
        *(*argv(index), "--distributed"),
    ]


@pytest.mark.slow
def test_a_run_of_two_processes_leaves_one_workdir_with_the_same_numbers(tmp_path):
    for code, out in run_two(by_hand(launcher(tmp_path))):
        assert code == 0, out
    assert [path.name for path in tmp_path.iterdir()] == ["0"]
    results = json.loads((tmp_path / "0" / "results.json").read_text())
    assert results["device"].startswith("4 x ")
    assert all(np.isfinite(row["metrics"]["accuracy"]["mean"]) for row in results["rows"])

    config = configs.load("configs/mixture.py", [*QUICK, "mesh.data=1"])
    pipeline.run(config, str(tmp_path / "alone"), ["denoiser"])
    together, alone = (read_lines(tmp_path / name / "metrics.jsonl") for name in ("0", "alone"))
    assert len(together) == len(alone) == 4
    for name in ("loss", "grad_norm"):
        values = [[line[name] for line in lines] for lines in (together, alone)]
        np.testing.assert_allclose(*values, rtol=1e-4)


@pytest.mark.slow  # starts two processes for variables that JAX reads by itself
def test_two_processes_of_slurm_refuse_with_one_message(tmp_path):
    first, second = run_two(by_slurm(launcher(tmp_path, "mesh.fsdp=3")))
    assert (first[0], second[0]) == (2, 2)
    said = [
        [line for line in out.splitlines() if not line.startswith(("[Gloo]", "start, "))]
        for _, out in (first, second)
    ]
    assert said == [["mesh: expected fsdp to divide the 4 devices, got 3"], []]
    assert not list(tmp_path.iterdir())
