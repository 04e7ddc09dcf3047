"""The method path through the launcher's stages, and a training that starts at what it found."""

import numpy as np
import pytest

import lgd
from experiments import config as configs
from experiments import pipeline
from experiments.workdir import read_json

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:covariance of")]
FIELDS = (
    "mesh.data=1",
    "guidance.methods=trajectory",
    "guidance.start=path",
    "guidance.path.num_particles=20",
    "guidance.num_snapshots=1",
    "guidance.trajectory.num_steps=1",
    "guidance.trajectory.learning_rate=1e-6",
)


def test_a_run_walks_and_trains_from_there(tmp_path, quick_compilation):
    """A training that hardly moves ends where the path did, whose row is there when asked for."""
    stages = ["denoiser", "guidance", "evaluate", "report"]
    folder = tmp_path / "run"
    pipeline.run(configs.load("configs/smoke.py", FIELDS), str(folder), stages)
    first = [row["method"] for row in read_json(folder / "results.json")["rows"]]
    assert "learned:trajectory" in first
    assert "learned:path" not in first
    more = [*FIELDS, "guidance.methods=trajectory,path"]
    pipeline.run(configs.load("configs/smoke.py", more), str(folder), stages)
    assert "learned:path" in [row["method"] for row in read_json(folder / "results.json")["rows"]]
    values = [
        lgd.load(folder / "guidance" / f"{name}.safetensors").params["values"]
        for name in ("path", "trajectory")
    ]
    np.testing.assert_allclose(*values, atol=1e-4)
    assert np.ptp(values[0]) > 0.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["guidance.trajectory.model=network"], "guidance.start: expected best or init"),
        (["guidance.methods=path", "reward.name=classifier"], "reward.name: expected none"),
        (["guidance.path.num_particles=1"], "guidance.path.num_particles"),
    ],
)
def test_what_a_path_cannot_do_is_refused(changes, message):
    with pytest.raises(configs.ConfigError, match=message):
        configs.load("configs/smoke.py", [*FIELDS, *changes])
