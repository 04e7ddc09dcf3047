"""How far guidance can go is learned on the network that measures, and on nothing else."""

from argparse import Namespace

import pytest

from experiments import config as configs
from experiments.publish import markdown
from experiments.stages import denoiser as denoiser_stage
from experiments.stages import guidance
from experiments.studies import floor
from experiments.workdir import WorkdirError, write_json
from lgd.evaluation import summary
from tests import untrained

pytestmark = pytest.mark.usefixtures("quick_compilation")

ROWS = {"unguided": summary([4.0, 6.0]), "constant": summary([3.0, 3.5])}


@pytest.fixture(scope="module")
def run(quick_compilation, tmp_path_factory):
    config = configs.load(
        "configs/smoke.py", ["classifier.num_features=5", "guidance.trajectory.num_steps=2"]
    )
    workdir, _ = untrained.image_run(tmp_path_factory.mktemp("run"), config)
    rows = [
        {"method": name, "metrics": {floor.METRIC: metric, "kid": metric}}
        for name, metric in ROWS.items()
    ]
    workdir.write_json(workdir.path / "results.json", {"rows": rows})
    return workdir.path, config


@pytest.mark.slow
def test_the_floor_is_learned_by_the_features_that_measure_and_once(run, monkeypatch):
    path, config = run
    loaded, load = set(), denoiser_stage.load_classifier

    def noted(config, workdir, dataset, name="classifier"):
        loaded.add(name)
        return load(config, workdir, dataset, name)

    monkeypatch.setattr(denoiser_stage, "load_classifier", noted)
    found = floor.measure(Namespace(workdir=path))
    assert loaded == {"classifier"}
    *rows, learned, real = found["rows"]
    assert {row["method"]: row[floor.METRIC] for row in rows} == ROWS
    assert len(learned[floor.METRIC]["values"]) == config.evaluation.test_seeds
    # Samples of a network that nobody trained are farther away than real images.
    assert 0.0 < real[floor.METRIC] < learned[floor.METRIC]["mean"]
    monkeypatch.setattr(guidance, "learn_guidance", lambda *_, **__: pytest.fail("learned again"))
    monkeypatch.setattr("lgd.evaluation.Generator.__call__", lambda *_: pytest.fail("sampled"))
    assert floor.measure(Namespace(workdir=path)) == found


def test_rows_are_told_how_far_they_go_towards_the_floor():
    lines = markdown.table(floor.rows_to_the_floor(ROWS, summary([1.0, 1.0]), 0.25)).splitlines()
    assert [line.split("|")[3].strip() for line in lines[2:]] == ["0%", "44%", "100%", ""]
    assert lines[-1] == "| training images | 0.2500 |  |"


def test_runs_that_have_no_such_floor_are_refused(run, tmp_path):
    _, config = run
    write_json(tmp_path / "config.json", configs.to_dict(configs.load("configs/mixture.py")))
    with pytest.raises(configs.ConfigError, match=r"a run on images, .* data.name mixture"):
        floor.measure(Namespace(workdir=tmp_path))
    with pytest.raises(configs.ConfigError, match="training images, got 1000"):
        floor._real_samples(floor.build.dataset(config), 10_000)
    write_json(tmp_path / "config.json", configs.to_dict(config))
    with pytest.raises(WorkdirError, match=r"results.json: expected a JSON file, found none"):
        floor.measure(Namespace(workdir=tmp_path))
