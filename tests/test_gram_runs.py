"""Statistics through the launcher's stages, and the tables of their benchmarks."""

import numpy as np
import pytest

from experiments import config as configs
from experiments import pipeline
from experiments.benchmarks.gram import cost, sweep
from experiments.benchmarks.gram.setup import Setup
from experiments.publish import markdown
from experiments.workdir import read_lines
from lgd import gram, schedules
from lgd.data import Dataset, labelled
from lgd.denoisers import from_function
from lgd.evaluation import summary

pytestmark = pytest.mark.slow

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


def budget(way, calls, seconds, *losses):
    """A row of the benchmark: losses of some seeds."""
    row = {"denoiser": cost.WAYS[way], "calls": calls, "seconds": seconds, "rate": 1e-3}
    return row | {"loss": summary(losses)}


def test_a_budget_is_reached_where_all_larger_ones_are_within():
    """Gaps are the losses themselves, of 1 unguided and 0 at best."""
    found = cost.with_gaps(
        [
            budget("gram", 10, 1.0, 0.009),
            budget("gram", 20, 2.0, 0.02),
            budget("gram", 40, 4.0, 0.0),
            budget("online", 100, 8.0, 0.5),
            budget("online", 400, 32.0, 0.008),
        ],
        1.0,
    )
    assert markdown.table(found["tables"]["reached"]).splitlines()[2:] == [
        "| 1.0% | 400 calls, 32.0 s | 40 calls, 4.0 s | 10.0x | 8.0x |",
        "| 0.1% | not reached | 40 calls, 4.0 s |  |  |",
    ]


def test_gaps_are_shares_of_what_the_best_mean_gains():
    rows = [
        budget("gram", 8, 1.0, 1.5, 1.7),
        budget("gram", 16, 1.0, 0.9, 1.1),
        budget("online", 4, 1.0, 2.0, 2.0),
    ]
    found = cost.with_gaps(rows, 3.0)
    gaps = [row["gap"] for row in found["rows"][:3]]
    np.testing.assert_allclose([gap["mean"] for gap in gaps], [0.3, 0.0, 0.5], atol=1e-12)
    errors = [gap["standard_error"] for gap in gaps]
    np.testing.assert_allclose(errors, [0.05, 0.05, 0.0], atol=1e-12)
    assert found["best"] == 1.0
    lines = markdown.table(found).splitlines()
    assert "| 30.00% ± 5.00% |" in lines[2]
    assert len(lines) == 2 + len(rows) + 1  # and the recipe of the paper


def test_the_sweep_has_64_different_settings():
    flow = schedules.rectified_flow()
    denoiser = from_function(lambda params, x, t, c: x, schedule=flow, kind="x0", null=2)
    split = labelled(np.zeros((4, 2), np.float32), np.zeros(4, np.int32))
    setup = Setup(
        configs.load("configs/smoke.py"), None, Dataset(split, split, split, ("a",)), denoiser, ()
    )
    for lanes in (sweep.lanes(setup), sweep.table_lanes(setup)):
        assert len(set(lanes)) == 64
