import dataclasses
import functools
import json
from argparse import Namespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import build_guidance as build
from experiments import config as configs
from experiments.publish import markdown, study, tables
from experiments.studies import ablations
from experiments.studies.ablation_settings import SETTINGS, Variant, config_of, replaced, values_of
from experiments.workdir import Workdir, write_json
from lgd import guidance, omega
from lgd.data import Dataset, labelled

pytestmark = pytest.mark.slow

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

LABELS = np.arange(8, dtype=np.int32)
SPLIT = labelled(np.zeros((8, 2), np.float32), LABELS)
DATASET = Dataset(SPLIT, SPLIT, SPLIT, tuple(map(str, LABELS)))


@pytest.fixture(scope="module")
def config():
    return configs.load("configs/mixture.py", TINY)


def chosen(path, *only, seeds=2, samples=None):
    return Namespace(
        workdir=path, only=list(only), seeds=seeds, samples=samples, training_seeds=1, test=False
    )


def command(*words):
    study.main("experiments.studies", {"ablations": ablations.__name__}, ["ablations", *words])


@pytest.fixture(scope="module")
def found(config, quick_compilation, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "mixture"
    Workdir(path, config)
    with pytest.MonkeyPatch.context() as patch:
        field = "guidance.one_step.learning_rate"  # one compilation for all its values
        rates = values_of("self_consistency", field, (0.02,))
        patch.setitem(SETTINGS, "rate", rates)
        yield path, ablations.measure(chosen(path, "rate"))


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
    monkeypatch.setattr(ablations.select, "best_snapshot", lambda *_: pytest.fail("as far as this"))
    with pytest.raises(pytest.fail.Exception, match="as far as this"):
        ablation(Variant("own", "l2", {}))
    with pytest.raises(pytest.fail.Exception, match="trained"):
        ablation(Variant("other", "l2", {"guidance.one_step.learning_rate": 0.2}))


def test_values_are_measured_with_the_same_noise_against_the_runs_own(found):
    _, results = found
    entries = results["rows"]
    assert [entry["label"] for entry in entries] == ["0.02", "0.1"]
    assert [entry["is_own"] for entry in entries] == [False, True]
    own = np.asarray(entries[1]["metric"]["values"])
    assert len(own) == 2
    gaps = np.asarray(entries[0]["metric"]["values"]) - own
    assert entries[0]["difference"]["mean"] == pytest.approx(gaps.mean(), abs=1e-12)
    assert entries[1]["difference"] is None
    assert entries[0]["metric"]["values"] != entries[1]["metric"]["values"]
    assert "| rate | **0.1** | " in markdown.table(results)
    assert list(ablations.figures(results)) == ["rate"]


def test_differences_are_to_the_runs_own_value_of_the_same_method():
    def entry(method, is_own, value):
        values = [value, value + 1.0]
        label = f"{value:g}"
        row = {"setting": "model", "label": label, "method": method, "is_own": is_own}
        return row | {"values": values}

    given = [
        *(("l2", False, 2.0), ("l2", True, 3.0)),
        *(("trajectory", False, 7.0), ("trajectory", True, 9.0)),
    ]
    rows = ablations.against_own([entry(*each) for each in given])
    found = [each["difference"] and each["difference"]["mean"] for each in rows]
    assert found == [-1.0, None, -2.0, 6.0]
    lines = markdown.table({"columns": ablations.COLUMNS, "rows": rows}).splitlines()[2:]
    assert [line.split("|")[4].split() for line in lines] == [
        *(["-1.00000", "±", "0.00000"], [], ["-2.00000", "±", "0.00000"]),
        ["+6.00000", "±", "0.00000"],
    ]
    alone = ablations.against_own([entry("l2", False, 2.0)])
    assert alone[0]["difference"] is None


def test_a_run_that_settings_do_not_fit_is_refused_before_anything_is_made(tmp_path):
    low = ["guidance.omega.init=0.5", "guidance.omega.max=0.8"]
    cases = {
        "mixture_reward": ([], r"reward.name: expected none, .* got 'tanh'"),
        "mixture": ([*TINY, *low], r"guidance.omega.init: expected init < .* got 1"),
    }
    for name, (fields, message) in cases.items():
        config = configs.load(f"configs/{name}.py", fields)
        path = tmp_path / name
        path.mkdir()
        write_json(path / "config.json", configs.to_dict(config))
        with pytest.raises(configs.ConfigError, match=message):
            ablations.measure(chosen(path, "initial-omega"))
        assert [file.name for file in path.iterdir()] == ["config.json"]


def contents(path):
    return {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_what_was_done_is_not_done_again(found, config, monkeypatch):
    path, results = found
    before = contents(path)

    def refuse(*args, **settings):
        raise AssertionError("expected nothing to be trained")

    monkeypatch.setattr("lgd.gram.fit", refuse)
    again = ablations.measure(chosen(path, "rate"))
    assert json.dumps(again) == json.dumps(results)
    assert contents(path) == before


def test_a_folder_that_is_no_run_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        command(f"--workdir={tmp_path}")
    assert "config.json: expected a JSON file, found none" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command(f"--workdir={tmp_path}", "--only=beta,gamma")
    assert "got ['gamma']" in capsys.readouterr().err


def test_models_are_what_the_config_asks_for(config):
    def model(method, **fields):
        values = configs.to_dict(config)
        for group, kind in fields.items():
            values["guidance"][group]["model"] = kind
        return build.omega_model(configs.from_dict(values), method, DATASET)

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
    model = build.omega_model(config, "trajectory", DATASET)
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
    same = dataclasses.replace(ablations.STUDY, measure=lambda chosen: results)
    monkeypatch.setattr(ablations, "STUDY", same)
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    command(f"--workdir={path}", "--only=beta,m", "--seeds=2", "--samples=80", "--name=some")
    published = json.loads((tmp_path / "some.json").read_text())
    assert published["rows"] == results["rows"]
    assert published["command"] == (
        "python -m experiments.studies ablations --workdir=... --only=beta,m --seeds=2 --samples=80"
    )
    assert (tmp_path / "docs" / "some-rate.png").stat().st_size > 1000
    assert (path / "report" / "ablations-rate.png").is_file()
    assert markdown.table(results) in capsys.readouterr().out
