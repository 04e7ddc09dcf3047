"""Runs with a reward: configs, families tuned for every weight, what omega can do, results."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import mixture_reward
from experiments import config as configs
from experiments import pipeline
from experiments.publish import tables
from lgd import schedules
from lgd.evaluation import MemoryJournal, ValidationScore, tune

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _little_compiling():
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


# Configs


@pytest.mark.parametrize(
    ("overrides", "field", "expected"),
    [
        ("reward.name=best", "reward.name", "expected one of none, linear, tanh, bump, classifier"),
        ("reward.weights=0", "reward.weights", "2 or more increasing numbers"),
        ("reward.weights=.1,.2", "reward.weights", "the first of them 0.0"),
        ("reward.weights=0,.2,.1", "reward.weights", "increasing"),
        ("reward.scale=0", "reward.scale", "a number in (0, 1e9]"),
        ("reward.direction=()", "reward.direction", "a tuple of numbers"),
        ("reward.centre=0,nan", "reward.centre", "a tuple of numbers"),
        ("reward.num_true_draws=1", "reward.num_true_draws", "an integer >= 2"),
        ("reward.name=tanh", "reward.name", "reward.direction of 64 numbers for data digits"),
        ("reward.name=bump data.name=mixture reward.centre=0,0,0", "reward.name",
         "reward.centre of 2 numbers for data mixture"),
        ("reward.name=classifier data.name=mixture", "reward.name", "another one for data mixture"),
        ("reward.name=linear data.name=mixture", "reward.name", "a bounded reward, or beta > 1"),
        ("reward.name=linear data.name=mixture guidance.one_step.beta=1 guidance.methods=l2,"
         "self_consistency", "reward.name", "got beta 1.0"),
        ("reward.name=classifier guidance.methods=l2,guided_score_matching", "reward.name",
         "guided_score_matching takes no reward"),
        ("reward.name=classifier guidance.methods=()", "reward.name", "names some"),
        ("reward.name=classifier guidance.num_snapshots=61", "guidance.num_snapshots",
         "at most 60, the steps of one weight"),
    ],
)  # fmt: skip
def test_mistake_in_a_config_is_named(overrides, field, expected):
    with pytest.raises(configs.ConfigError) as caught:
        configs.load("configs/default.py", overrides.split(" "))
    (error,) = caught.value.errors
    assert error.startswith(f"{field}: expected ")
    assert expected in error


@pytest.mark.parametrize(
    "overrides",
    [
        "reward.name=linear data.name=mixture guidance.trajectory.beta=1.5",
        "reward.name=linear data.name=mixture guidance.one_step.beta=1 guidance.methods=l2",
        "reward.name=bump data.name=mixture reward.direction=1",
        "reward.name=classifier reward.direction=1",
    ],
)
def test_config_that_fits(overrides):
    assert configs.load("configs/default.py", overrides.split(" ")).reward.name != "none"


# Selection


class Still:
    """Samples of two classes that lie where omega is, one class each."""

    conditions = np.arange(2)

    def __call__(self, guidance, per_class, *, seed):
        t = jnp.full(2, 0.5)
        omega = guidance(s=t, t=t, c=jnp.arange(2, dtype=jnp.int32))
        return jnp.broadcast_to(omega[:, None, None], (2, per_class, 1))


def test_every_class_gets_the_interval_that_suits_it_and_the_weight():
    """The distance is omega^2; the reward is omega of class 0, and 0.2 omega of class 1."""
    score = ValidationScore(
        generator=Still(),
        journal=MemoryJournal(),
        distance=lambda x: jnp.mean(x**2, axis=(1, 2)),
        reward=lambda x: jnp.mean(x, axis=(1, 2)) * jnp.asarray([1.0, 0.2]),
        full=4,
    )
    axes = {"limited_interval": {"w": (0.0, 0.1, 0.5, 1.0, 2.0, 3.0), "lo": (0.0,), "hi": (1.0,)}}
    for gamma, chosen in ((0.0, [0.0, 0.0]), (1.0, [0.5, 0.1]), (4.0, [2.0, 0.5])):
        selected, _ = tune(
            ("limited_interval", "limited_interval_per_class"),
            score.with_gamma(gamma),
            schedule=schedules.rectified_flow(),
            axes=axes,
        )
        assert selected["limited_interval_per_class"].params["w"] == chosen
        losses = [w**2 - gamma * w * r for w, r in zip(chosen, (1.0, 0.2), strict=True)]
        assert selected["limited_interval_per_class"].score == pytest.approx(np.mean(losses))


# A run

FAMILIES = (
    *("constant", "limited_interval", "limited_interval_per_class", "clamp_linear"),
    "learned:trajectory",
)


def tiny():
    config = mixture_reward.get_config()
    config.update_from_flattened_dict(
        {
            "data.num_train": 80,
            "data.num_validation": 32,
            "data.num_test": 32,
            "sampling.num_steps": 3,
            "guidance.methods": ("trajectory",),
            "guidance.num_snapshots": 1,
            "guidance.start": "init",
            "guidance.trajectory.num_steps": 2,
            "guidance.trajectory.num_particles": 2,
            "guidance.trajectory.num_targets": 2,
            "reward.weights": (0.0, 0.5),
            "reward.trajectory_num_steps": 2,
            "reward.num_true_draws": 20,
            "evaluation.num_samples": 40,
            "evaluation.num_screening": 40,
            "evaluation.test_seeds": 2,
            "evaluation.constant_weights": (0.0, 0.5, 1.0),
            "evaluation.interval_weights": (1.0,),
            "evaluation.interval_lower": (0.0,),
            "evaluation.interval_upper": (0.5,),
        }
    )
    return config.lock()


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    config = tiny()
    assert configs.validate(config) == []
    pipeline.run(config, str(folder), ["denoiser", "guidance", "evaluate"])
    return folder


def test_rows_of_a_run(workdir):
    results = json.loads((workdir / "results.json").read_text())
    assert [row["method"] for row in results["rows"]] == [
        "unguided",
        *(f"{family}:reward({gamma})" for gamma in ("0", "0.5") for family in FAMILIES),
    ]
    for row in results["rows"]:
        metrics, gamma = row["metrics"], row["params"].get("gamma")
        assert np.mean(row["reward_by_class"]) == pytest.approx(metrics["reward"]["mean"], abs=1e-6)
        assert ("loss" in metrics) == (gamma is not None)
        if gamma is not None:
            loss = metrics["energy_distance"]["mean"] - gamma * metrics["reward"]["mean"]
            assert metrics["loss"]["mean"] == pytest.approx(loss)
    losses = [each for each in results["comparisons"] if each["metric"] == "loss"]
    assert [each["against"].split(":")[1] for each in losses] == ["reward(0)", "reward(0.5)"]
    assert [each["class"] for each in results["classes"]] == [f"arm {k}" for k in range(8)]
    tilted = results["tilted"]
    middle = tilted["gamma"].index(0.0)
    assert tilted["energy_distance"][middle] == pytest.approx(0.0, abs=1e-6)
    assert np.all(np.diff(tilted["reward"]) > 0.0)


def test_every_weight_goes_on_from_the_one_before(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    last = {line["training"]: line for line in lines}
    assert list(last) == ["trajectory:reward(0)", "trajectory:reward(0.5)"]
    names = sorted(path.name for path in (workdir / "params" / "guidance").iterdir())
    assert names == [
        *("trajectory-reward-0-000002.safetensors", "trajectory-reward-0.5-000002.safetensors"),
    ]


def test_run_goes_on_where_it_was_interrupted(workdir):
    """Without results.json nothing is trained or sampled anew, and the results are the same."""
    before = json.loads((workdir / "results.json").read_text())
    (workdir / "results.json").unlink()
    measured = (workdir / "measured.jsonl").read_bytes()
    trained = {p: p.stat().st_mtime_ns for p in (workdir / "params").rglob("*.safetensors")}
    pipeline.run(tiny(), str(workdir), ["denoiser", "guidance", "evaluate"])
    assert json.loads((workdir / "results.json").read_text()) == before
    assert (workdir / "measured.jsonl").read_bytes() == measured
    assert {p: p.stat().st_mtime_ns for p in (workdir / "params").rglob("*.safetensors")} == trained


def test_table_sets_learned_rows_beside_the_hand_made_one_of_least_validation_loss(workdir):
    results = json.loads((workdir / "results.json").read_text())
    lines = tables.markdown(results).splitlines()
    assert len(lines) == 2 + 1 + 2 * 2  # unguided; a hand-made and a learned row of every weight
    for gamma, (hand_made, learned) in ((0.0, lines[3:5]), (0.5, lines[5:7])):
        rows = [row for row in results["rows"] if row["params"].get("gamma") == gamma]
        *others, ours = rows
        best = min(others, key=lambda row: row["validation"])
        assert f"| {best['family']} |" in hand_made
        assert f"| {ours['family']} |" in learned
        assert (hand_made + learned).count("**") == 2  # one cell is bold
