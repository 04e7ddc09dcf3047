"""What the report stage gives its HTML page: times, files, and other training seeds."""

import json
import types
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import lgd
from experiments import config as configs
from experiments.publish import tables
from experiments.rules.guidance import METHODS
from experiments.stages import report_page
from experiments.studies.ablation_settings import replaced
from lgd import omega
from lgd.machinery import storage
from lgd.report import definitions

ROOT = Path(__file__).resolve().parents[1]
ROW = {"method": "learned:trajectory", "family": "learned:trajectory", "params": {"step": 10}}
TIMES = (1.0, 0.5, 0.0)


def guidance(value):
    return lgd.Guidance(omega.StepTable(times=TIMES), values(value), "init")


def values(value):
    return {"values": jnp.full((1, 2), value)}


@pytest.fixture
def config():
    return configs.load(str(ROOT / "configs" / "smoke.py"))


def ablated(workdir, name, config, value, step=10):
    """A training that the study of ablations left."""
    folder = workdir / "ablations" / name
    file = folder / "params" / "guidance" / f"trajectory-{step:06d}.safetensors"
    storage.save_params(file, values(value))
    (folder / "config.json").write_text(json.dumps(configs.to_dict(config)), "utf-8")


def test_other_training_seeds_are_those_that_differ_in_nothing_else(config, tmp_path):
    alone = replaced(config, {"guidance.methods": ["trajectory"]})
    ablated(tmp_path, "a", replaced(alone, {"seed": 1}), 1.0)
    ablated(tmp_path, "b", replaced(alone, {"seed": 2}), 2.0)
    ablated(tmp_path, "own", alone, 3.0)
    ablated(tmp_path, "other", replaced(alone, {"seed": 3, "guidance.omega.max": 5.0}), 4.0)
    ablated(tmp_path, "step", replaced(alone, {"seed": 4}), 5.0, step=5)
    (tmp_path / "ablations" / "unfinished").mkdir()
    workdir = types.SimpleNamespace(path=tmp_path)
    found = report_page._of_other_seeds(config, workdir, ROW, guidance(0.0))
    assert [float(each.params["values"][0, 0]) for each in found] == [1.0, 2.0]
    assert report_page._of_other_seeds(config, workdir, {"method": "constant"}, 0.5) == []


def test_all_seeds_are_curves(config, tmp_path):
    ablated(tmp_path, "a", replaced(config, {"guidance.methods": ["trajectory"], "seed": 1}), 1.0)
    dataset = types.SimpleNamespace(
        captions=(), conditions=np.arange(3, dtype=np.int32), class_names=("a", "b", "c")
    )
    made = report_page.weights(
        config,
        types.SimpleNamespace(path=tmp_path),
        dataset,
        [{"method": "unguided"}, {"method": "constant"}, ROW],
        {"constant": lgd.guidance.constant(0.5), "learned:trajectory": guidance(0.0)},
    )
    steps = config.sampling.num_steps
    assert made.of_seeds("constant").shape == (1, 3, steps)
    np.testing.assert_array_equal(made.of_seeds("learned:trajectory")[:, 0, 0], [0.0, 1.0])
    assert list(made.omega) == ["constant", "learned:trajectory"]
    assert np.isnan(made.axes["logsnr"][0])
    np.testing.assert_array_equal(made.axes["step"], np.arange(1, steps + 1))


def test_times_are_by_row(tmp_path):
    lines = [("guidance/trajectory", 3.0), ("tune", 5.0), ("guidance/trajectory", 4.0)]
    text = "".join(json.dumps({"stage": s, "seconds": t}) + "\n" for s, t in lines)
    (tmp_path / "timings.jsonl").write_text(text, "utf-8")
    rewarded = {"method": "x", "family": "learned:trajectory", "params": {"gamma": 0.5}}
    found = report_page.seconds(types.SimpleNamespace(path=tmp_path), [ROW, rewarded])
    assert found == {"learned:trajectory": 7.0, "tune": 5.0}


def test_files_come_best_first(tmp_path):
    names = ("l2", "trajectory", "missing")
    rows = [
        {"method": f"learned:{name}", "params": {}, "metrics": {"d": {"mean": mean}}}
        for name, mean in zip(names, (2.0, 1.0, 0.0), strict=True)
    ]
    (tmp_path / "guidance").mkdir()
    for name in names[:2]:
        (tmp_path / "guidance" / f"{name}.safetensors").touch()
    results = {"rows": rows, "primary_metric": "d", "lower_is_better": True}
    assert report_page._files(types.SimpleNamespace(path=tmp_path), results) == {
        "learned:trajectory": "guidance/trajectory.safetensors",
        "learned:l2": "guidance/l2.safetensors",
    }


def test_every_method_and_metric_of_a_run_is_explained():
    for name in METHODS:
        said = definitions.method({"method": f"learned:{name}", "params": {}})
        assert "by an objective of this name" not in said, name
    for name, title in tables._METRICS.items():
        found = definitions.metric(name)
        arrow = "↓" if found.lower_is_better else "↑"
        assert f"{found.title} {arrow}" == title
