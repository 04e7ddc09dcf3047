import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import build, build_guidance
from experiments import config as configs
from experiments.studies import learned_schedules
from experiments.workdir import Workdir, write_json
from lgd import guidance, omega
from lgd.exchange.schedules import ScheduleError, read

T = jnp.asarray([0.1, 0.4, 0.7, 0.99], jnp.float32)
C = jnp.asarray([0, 3, 7, 1], jnp.int32)


def values(omega_fn):
    return np.asarray(omega_fn(s=0.5 * T, t=T, c=C))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with the last two snapshots of a training, and what they hold."""
    path = tmp_path_factory.mktemp("runs") / "mixture"
    settings = ["denoiser.level=exact", "guidance.methods=l2", "guidance.one_step.num_steps=40"]
    config = configs.load("configs/mixture.py", settings)
    workdir = Workdir(path, config)
    model = build_guidance.omega_model(config, "l2", build.dataset(config))
    params = model.init(jax.random.key(0), C[:1])
    kept = {}
    for step, factor in ((30, 0.5), (40, 2.0)):
        mine = jax.tree.map(lambda leaf, factor=factor: factor * (leaf + 0.01), params)
        workdir.save_params(f"guidance/l2-{step:06d}", mine)
        kept[step] = omega.bind(model, mine)
    return path, kept


def test_a_run_that_is_not_evaluated_gives_its_last_step(run):
    path, kept = run
    np.testing.assert_allclose(values(learned_schedules.load(str(path), "l2")), values(kept[40]))
    found = learned_schedules.load(str(path), "l2", 30)
    np.testing.assert_allclose(values(found), values(kept[30]))
    assert np.abs(values(kept[30]) - values(kept[40])).max() > 0.1


def test_an_evaluated_run_gives_what_was_selected(run):
    path, kept = run
    rows = [
        {"method": "unguided", "params": {}},
        {"method": "limited_interval", "params": {"w": 1.5, "lo": 0.2, "hi": 0.8}},
        {"method": "learned:l2", "params": {"step": 30}},
    ]
    write_json(path / "results.json", {"rows": rows})
    try:
        found = learned_schedules.rows(str(path))
        assert list(found) == ["unguided", "limited_interval", "learned:l2"]
        np.testing.assert_allclose(values(found["learned:l2"]), values(kept[30]))
        expected = guidance.limited_interval(1.5, 0.2, 0.8)
        np.testing.assert_array_equal(values(found["limited_interval"]), values(expected))
        selected = learned_schedules.load(str(path), "l2")
        np.testing.assert_allclose(values(selected), values(kept[30]))
    finally:
        (path / "results.json").unlink()


def test_a_file_may_name_a_run(run, tmp_path):
    path, kept = run
    entry = {"name": "ours", "kind": "learned", "workdir": str(path), "method": "l2", "step": 30}
    (tmp_path / "mine.json").write_text(json.dumps([entry]))
    sources, kinds = [str(tmp_path / "mine.json")], learned_schedules.KINDS
    found = read(sources, num_strata=8, more_kinds=kinds)
    np.testing.assert_allclose(values(found["ours"]), values(kept[30]))
    with pytest.raises(ScheduleError, match="expected at least the 9 strata of the data, got 8"):
        read(sources, num_strata=9, more_kinds=kinds)


@pytest.mark.parametrize(
    ("method", "step", "message"),
    [
        ("l3", None, r"method: expected one of .* \(l2\), got 'l3'"),
        ("l2", 35, r"step: expected one that was kept \(\[10, 20, 30, 40\]\), got 35"),
        ("l2", 10, "expected parameters, found none"),
    ],
)
def test_what_a_run_does_not_hold_is_named(run, method, step, message):
    with pytest.raises(learned_schedules.LearnedError, match=message):
        learned_schedules.load(str(run[0]), method, step)


def test_damaged_results_are_named(run):
    path, _ = run
    (path / "results.json").write_text('{"rows": [3]}')
    try:
        for call in (learned_schedules.rows, lambda path: learned_schedules.load(path, "l2")):
            with pytest.raises(learned_schedules.LearnedError, match=r"results\.json"):
                call(str(path))
    finally:
        (path / "results.json").unlink()
