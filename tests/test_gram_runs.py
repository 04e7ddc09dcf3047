"""Statistics through the launcher's stages, and the tables of their benchmarks."""

import numpy as np
import pytest

from experiments import config as configs
from experiments import pipeline
from experiments.benchmarks.gram import cost, sweep
from experiments.benchmarks.gram.setup import Setup
from experiments.publish import statistics_tables
from experiments.workdir import read_lines
from lgd import gram, schedules
from lgd.data import Dataset, labelled
from lgd.denoisers import from_function
from lgd.evaluation import summary

FIELDS = (
    "mesh.data=1",
    "statistics.num_examples=128",
    "statistics.num_held_out=64",
    "statistics.batch_size=64",
    "statistics.shard_examples=64",
    "guidance.methods=self_consistency,marginal",
    "guidance.one_step.group_size=4",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory, quick_compilation):
    """A run up to guidance, and what is in its folder."""
    folder = tmp_path_factory.mktemp("runs") / "statistics"
    config = configs.load("configs/smoke.py", FIELDS)

    def go():
        pipeline.run(config, str(folder), ["denoiser", "collect", "guidance"])
        return folder

    return go


def test_one_step_rows_are_learned_from_statistics(run):
    folder = run()
    for name, members, size in (
        ("train-copies", "copies", 128),
        ("train-mixed", "mixed", 128),
        ("held_out", "copies", 64),
    ):
        gathered = gram.read(folder / "statistics" / name, progress=False)
        assert (gathered.layout.members, gathered.size) == (members, size)
    kept = sorted(path.name for path in (folder / "params" / "guidance").iterdir())
    assert kept == [
        f"{m}-{s:06d}.safetensors" for m in ("marginal", "self_consistency") for s in (5, 10)
    ]
    logged = [
        line for line in read_lines(folder / "metrics.jsonl") if line["training"] == "marginal"
    ]
    assert [line["step"] for line in logged] == [5, 10]
    assert np.isfinite([line["loss"] for line in logged]).all()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    run()
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        (["statistics.num_examples=100"], "statistics.num_examples"),
        (["statistics.shard_examples=100"], "statistics.shard_examples"),
        (
            ["statistics.num_examples=256", "reward.name=tanh", "data.name=mixture"],
            "statistics.num_examples",
        ),
    ],
)
def test_configs_that_do_not_fit_statistics_are_refused(fields, field):
    with pytest.raises(configs.ConfigError) as refused:
        configs.load("configs/smoke.py", fields)
    assert any(line.startswith(f"{field}: expected") for line in refused.value.errors)


def budget(calls, seconds, gap):
    return {"calls": calls, "seconds": seconds, "gap": gap, "rate": 1e-3}


def test_a_budget_is_reached_where_all_larger_ones_are_within():
    gram = [budget(10, 1.0, 0.009), budget(20, 2.0, 0.02), budget(40, 4.0, 0.005)]
    online = [budget(100, 8.0, 0.5), budget(400, 32.0, 0.008)]
    found = cost._reached(gram, online)
    assert found["0.01"] == {
        "gram": {"calls": 40, "seconds": 4.0},
        "online": {"calls": 400, "seconds": 32.0},
    }
    assert found["0.001"] == {"gram": None, "online": None}
    assert statistics_tables.reached({"reached": found}).splitlines()[2:] == [
        "| 1% | 400 calls, 32.0 s | 40 calls, 4.0 s | 10.0x | 8.0x |",
        "| 0.1% | not reached | not reached |  |  |",
    ]


def test_gaps_are_shares_of_what_the_best_mean_gains():
    def row(calls, *losses):
        return {"calls": calls, "seconds": 1.0, "rate": 1e-3, "loss": summary(losses)}

    found = cost.with_gaps(
        {
            "unguided": 3.0,
            "gram": [row(8, 1.5, 1.7), row(16, 0.9, 1.1)],
            "online": [row(4, 2.0, 2.0)],
        }
    )
    rows = [*found["gram"], *found["online"]]
    np.testing.assert_allclose([each["gap"] for each in rows], [0.3, 0.0, 0.5], atol=1e-12)
    np.testing.assert_allclose([each["gap_error"] for each in rows], [0.05, 0.05, 0.0], atol=1e-12)
    assert found["best"] == 1.0
    assert found["reached"]["0.01"] == {"gram": {"calls": 16, "seconds": 1.0}, "online": None}
    assert statistics_tables.cost(found | {"paper_calls": 1}).splitlines()[3:5] == [
        "| asked once | 8 | 1.0 | 0.001 | 30.00% ± 5.00% |",
        "| asked once | 16 | 1.0 | 0.001 | 0.00% ± 5.00% |",
    ]


def test_the_sweep_has_64_different_settings():
    flow = schedules.rectified_flow()
    denoiser = from_function(lambda params, x, t, c: x, schedule=flow, kind="x0", null=2)
    split = labelled(np.zeros((4, 2), np.float32), np.zeros(4, np.int32))
    setup = Setup(
        configs.load("configs/smoke.py"), None, Dataset(split, split, split, ("a",)), denoiser, ()
    )
    for lanes in (sweep.lanes(setup), sweep.table_lanes(setup)):
        assert len(set(lanes)) == 64
