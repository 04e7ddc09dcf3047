import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import build
from experiments import config as configs
from experiments.studies import ablations
from experiments.studies.ablation_settings import SETTINGS, Variant, config_of, replaced, values_of
from experiments.workdir import Workdir
from lgd import guidance, omega

TINY = (
    "denoiser.level=exact",
    "data.num_validation=160",
    "sampling.num_steps=3",
    "guidance.start=init",
    "guidance.num_snapshots=1",
    "guidance.omega.width=8",
    "guidance.omega.depth=1",
    "guidance.one_step.num_steps=3",
    "guidance.one_step.batch_size=16",
    "guidance.one_step.learning_rate=0.1",
    "evaluation.num_samples=80",
    "evaluation.num_screening=80",
    "evaluation.validation_seeds=1",
    *("statistics.num_examples=64", "statistics.num_held_out=16"),  # which a variant collects
    *("statistics.batch_size=16", "statistics.shard_examples=64"),
)


@pytest.fixture(scope="module")
def config():
    return configs.load("configs/mixture.py", TINY)


@pytest.fixture(scope="module")
def found(config, quick_compilation, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "mixture"
    Workdir(path, config)
    with pytest.MonkeyPatch.context() as patch:
        field = "guidance.one_step.learning_rate"  # one compilation for all its values
        rates = values_of("self_consistency", field, (0.02,))
        patch.setitem(SETTINGS, "rate", rates)
        yield path, ablations.measure(config, path, ["rate"], 2)


@pytest.mark.parametrize("name", ["digits", "fashion_mnist", "mixture"])
def test_values_of_every_setting_are_right_and_differ(name):
    config = configs.load(f"configs/{name}.py")
    for setting, variants_of in SETTINGS.items():
        variants = variants_of(config)
        each = [configs.to_dict(config_of(config, variant)) for variant in variants]
        assert (
            len({json.dumps(one) for one in each}) == len(each) == len({v.label for v in variants})
        )
        assert len(each) >= 3 or setting in ("space", "feature-network")


def test_settings_of_trajectories_are_those_of_the_method_in_features_where_it_is_learned():
    for name, method in {"digits": "trajectory", "fashion_mnist": "trajectory_features"}.items():
        config = configs.load(f"configs/{name}.py")
        for setting in ("particles", "unrolled-steps", "trajectory-start", "initial-omega"):
            assert {each.method for each in SETTINGS[setting](config)} == {method}
        networks = [each.label for each in SETTINGS["feature-network"](config)]
        others = ["1 lenet", "2 lenet", "4 lenet", "4 mlp"]  # conv is what measures
        assert networks == ([] if name == "digits" else others)


def test_what_a_run_has_learned_is_not_learned_again(config, tmp_path, monkeypatch):
    path = tmp_path / "run"
    Workdir(path, config).save_params("guidance/l2-000003", {"w": np.zeros(2, np.float32)})
    ablation = ablations.Ablation(config, path, 2, None)
    monkeypatch.setattr("lgd.gram.fit", lambda *_, **__: pytest.fail("trained"))
    monkeypatch.setattr(ablations.tune, "select", lambda *_: pytest.fail("as far as this"))
    with pytest.raises(pytest.fail.Exception, match="as far as this"):
        ablation(Variant("own", "l2", {}))
    with pytest.raises(pytest.fail.Exception, match="trained"):
        ablation(Variant("other", "l2", {"guidance.one_step.learning_rate": 0.2}))


def test_values_are_measured_with_the_same_noise_against_the_runs_own(found):
    _, results = found
    entries = results["settings"]["rate"]
    assert [entry["label"] for entry in entries] == ["0.02", "0.1"]
    assert [entry["is_own"] for entry in entries] == [False, True]
    own = np.asarray(entries[1]["metric"]["values"])
    assert len(own) == 2
    gaps = np.asarray(entries[0]["metric"]["values"]) - own
    assert entries[0]["difference"]["mean"] == pytest.approx(gaps.mean(), abs=1e-12)
    assert entries[1]["difference"] is None
    assert entries[0]["metric"]["values"] != entries[1]["metric"]["values"]
    assert "| rate | **0.1** | " in ablations.table(results)
    ablations.figure(results, "rate", "energy_distance")


def test_differences_are_to_the_runs_own_value_of_the_same_method():
    def entry(method, is_own, value):
        values = [value, value + 1.0]
        return {"label": f"{value:g}", "method": method, "is_own": is_own, "values": values}

    given = [
        *(("l2", False, 2.0), ("l2", True, 3.0)),
        *(("trajectory", False, 7.0), ("trajectory", True, 9.0)),
    ]
    others = ablations._against_own([entry(*each) for each in given])
    found = [each["difference"] and each["difference"]["mean"] for each in others]
    assert found == [-1.0, None, -2.0, 6.0]
    lines = ablations.table({"settings": {"model": others}}).splitlines()[2:]
    assert [line.split("|")[4].split() for line in lines] == [
        *(["-1.00000", "±", "0.00000"], [], ["-2.00000", "±", "0.00000"]),
        ["+6.00000", "±", "0.00000"],
    ]
    alone = ablations._against_own([entry("l2", False, 2.0)])
    assert alone[0]["difference"] is None


def test_a_run_that_settings_do_not_fit_is_refused_before_anything_is_made(tmp_path):
    rewarded = configs.load("configs/mixture_reward.py")
    with pytest.raises(configs.ConfigError, match=r"reward.name: expected none, .* got 'tanh'"):
        ablations.measure(rewarded, tmp_path / "run", ["beta"], 2)
    low = [*TINY, "guidance.omega.init=0.5", "guidance.omega.max=0.8"]
    huge = configs.load("configs/mixture.py", low)
    with pytest.raises(configs.ConfigError, match=r"guidance.omega.init: expected init < .* got 1"):
        ablations.measure(huge, tmp_path / "run", ["initial-omega"], 2)
    assert not (tmp_path / "run").exists()


def contents(path):
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_what_was_done_is_not_done_again(found, config, monkeypatch):
    path, results = found
    before = contents(path)

    def refuse(*args, **settings):
        raise AssertionError("expected nothing to be trained")

    monkeypatch.setattr("lgd.gram.fit", refuse)
    again = ablations.measure(config, path, ["rate"], 2)
    assert json.dumps(again) == json.dumps(results)
    assert contents(path) == before


def test_a_folder_that_is_no_run_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["ablations", f"--workdir={tmp_path}"])
    with pytest.raises(SystemExit, match=r"ablations: .*expected a JSON file, found none"):
        ablations.main()
    monkeypatch.setattr("sys.argv", ["ablations", f"--workdir={tmp_path}", "--only=beta,gamma"])
    with pytest.raises(SystemExit):
        ablations.main()
    assert "got ['gamma']" in capsys.readouterr().err


def test_models_are_what_the_config_asks_for(config):
    def model(method, **fields):
        values = configs.to_dict(config)
        for group, kind in fields.items():
            values["guidance"][group]["model"] = kind
        return build.omega_model(configs.from_dict(values), method, 8)

    assert isinstance(model("l2"), omega.Network)
    assert isinstance(model("l2", one_step="table"), omega.BinTable)
    assert isinstance(model("trajectory"), omega.StepTable)
    network = model("trajectory", trajectory="network")
    assert isinstance(network, omega.Network)
    assert network.support == build.objective(config, "trajectory").support


@pytest.mark.parametrize(
    ("steps", "start", "length", "moved"),
    [
        (4, 1.0, 5, [1, 1, 1, 1]),
        (4, 0.5, 3, [0, 0, 1, 1]),
        (4, 0.6, 4, [0, 1, 1, 1]),
        (10, 0.4, 5, [0] * 6 + [1] * 4),  # of which float32 has another value
    ],
)
def test_trajectories_start_where_the_config_says(config, steps, start, length, moved):
    fields = {"guidance.trajectory.start_time": start, "sampling.num_steps": steps}
    config = replaced(config, fields | {"guidance.trajectory.grid_scales": (1.0, 2.0)})
    objective = build.objective(config, "trajectory")
    assert objective.start == ("noise" if start == 1.0 else "data")
    assert (objective.times[0], objective.times[-1]) == (pytest.approx(start), 0.0)
    assert len(objective.times) == length
    assert len(objective.more_times[0]) > length
    model = build.omega_model(config, "trajectory", 8)
    assert len(model.times) == steps + 1  # where samples are drawn, omega has a value for all
    grid, c = jnp.asarray(objective.times), jnp.zeros(1, jnp.int32)
    slopes = jax.jacobian(
        lambda params: guidance.on_grid(functools.partial(model.apply, params), grid, c)
    )({"values": jnp.ones((8, steps))})["values"]
    np.testing.assert_array_equal(jnp.abs(slopes[:, 0, 0]).sum(axis=0) > 0, moved)


def test_grids_of_several_numbers_of_steps_start_at_one_time_to_the_last_bit(config):
    fields = {"sampling.grid": "edm", "schedule": "cosine", "sampling.num_steps": 25}
    several = {"guidance.trajectory.grid_scales": (1.0, 0.5, 2.0)}
    objective = build.objective(replaced(config, fields | several), "trajectory")
    assert objective.times[0] < 1.0
    assert {times[0] for times in objective.more_times} == {objective.times[0]}


def test_the_command_publishes_results_and_a_figure_of_every_setting(
    found, tmp_path, monkeypatch, capsys
):
    path, results = found
    monkeypatch.setattr(ablations, "measure", lambda *_: results)
    monkeypatch.setattr(ablations, "RESULTS", tmp_path)
    monkeypatch.setattr(ablations, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    flags = [f"--workdir={path}", "--only=beta,m", "--seeds=2", "--samples=80", "--name=some"]
    monkeypatch.setattr("sys.argv", ["ablations", *flags])
    ablations.main()
    published = json.loads((tmp_path / "some.json").read_text())
    assert published["settings"] == results["settings"]
    assert published["command"] == (
        "python -m experiments.studies.ablations --workdir=... --seeds=2 --samples=80 --only=beta,m"
    )
    assert (tmp_path / "docs" / "some-rate.png").stat().st_size > 1000
    assert (path / "report" / "ablation-rate.png").is_file()
    assert ablations.table(results) in capsys.readouterr().out
