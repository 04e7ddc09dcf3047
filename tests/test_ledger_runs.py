"""Every file of finished runs of the launcher: changed, exchanged, and kept when methods come."""

import shutil
from pathlib import Path

import ledger_cases as cases
import pytest

from experiments import config as configs
from experiments.faults.bench import STAGES, TINY, Bench
from experiments.workdir import Workdir, WorkdirError, read_json

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def finished(bench):
    """Runs of two seeds, all stages, with statistics."""
    runs = [bench.folder / f"seed{seed}" for seed in range(2)]
    for seed, run in enumerate(runs):
        ended = bench.launch(run, STAGES, f"--config.seed={seed}")
        assert ended.code == 0, ended.out
    return runs


@pytest.fixture
def run(finished, tmp_path):
    return Path(shutil.copytree(finished[0], tmp_path / "run"))


def test_no_damage_to_any_file_of_a_run_is_silent(finished, run):
    config = configs.load("configs/mixture.py", TINY)

    def start():
        try:
            Workdir(run, config)
        except WorkdirError as error:
            return str(error)
        return ""

    names = cases.files(run)
    assert {name.split("/")[0] for name in names} == {
        *("LEDGER", "checkpoints", "config.json", "data.json", "guidance", "measured.jsonl"),
        *("metrics.jsonl", "params", "report", "results.json", "statistics", "timings.jsonl"),
    }
    assert list(cases.silent(run, finished[1], start)) == []


@pytest.mark.parametrize(
    "name",
    [
        *("params/denoiser.safetensors", "measured.jsonl", "results.json", "config.json", "LEDGER"),
        *("data.json", "checkpoints/denoiser/LEDGER", "metrics.jsonl", "report/report.md"),
    ],
)
def test_the_launcher_refuses_a_file_of_another_run_with_exit_code_2(bench, finished, run, name):
    shutil.copyfile(finished[1] / name, run / name)
    ended = bench.launch(run, STAGES)
    assert ended.code == 2, ended.out
    assert Path(name).name in ended.out
    assert "Traceback" not in ended.out


def test_a_method_added_to_a_finished_run_is_learned_and_all_else_is_kept(bench, run):
    before = {name: (run / name).read_bytes() for name in cases.files(run)}
    rows = read_json(run / "results.json")["rows"]
    ended = bench.launch(run, STAGES, "--config.guidance.methods=self_consistency,l2,trajectory")
    assert ended.code == 0, ended.out
    new = read_json(run / "results.json")["rows"]
    assert [row for row in new if row["method"] != "learned:l2"] == rows
    assert len(new) == len(rows) + 1
    kept = [name for name in before if name.startswith(("params/", "statistics/", "checkpoints/"))]
    assert all((run / name).read_bytes() == before[name] for name in kept)
    for name in ("measured.jsonl", "metrics.jsonl"):
        assert (run / name).read_bytes().startswith(before[name])


def test_training_longer_is_refused_with_what_to_do_and_done_then(bench, run):
    denoiser = (run / "params" / "denoiser.safetensors").read_bytes()
    flags = ["--config.guidance.trajectory.num_steps=6"]
    refused = bench.launch(run, STAGES, *flags)
    assert refused.code == 2
    assert "guidance.trajectory.num_steps: 4 -> 6" in refused.out
    assert "or --redo=guidance" in refused.out
    ended = bench.launch(run, STAGES, *flags, "--redo=guidance")
    assert ended.code == 0, ended.out
    assert (run / "params" / "denoiser.safetensors").read_bytes() == denoiser
    assert (run / "params" / "guidance" / "trajectory-000006.safetensors").exists()
    assert bench.launch(run, STAGES, *flags).code == 0


def test_statistics_of_another_run_are_refused(bench, finished, run):
    for folder in (run, finished[1]):
        assert (folder / "statistics" / "train-copies" / "manifest.json").exists()
    for _ in cases.exchanged_folders(run, finished[1], ["statistics/train-copies"]):
        ended = bench.launch(run, STAGES)
        assert (ended.code, "train-copies" in ended.out) == (2, True)
