"""Benchmarks, the tables and figures of published results, and the commands that make them."""

import argparse
import contextlib
import dataclasses
import importlib
import json
import time
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import config as configs
from experiments.benchmarks.checks import conditions, cost, gradient_noise
from experiments.benchmarks.device.timing import ratio
from experiments.benchmarks.gram import agreement
from experiments.publish import __main__ as publish
from experiments.publish import documents, markdown, study, tables
from experiments.publish.markdown import number, text
from experiments.studies import levels, transfer
from experiments.workdir import Workdir, read_json
from lgd import guidance, sampling, schedules
from lgd.denoisers import from_function


def test_ratios_are_taken_round_by_round():
    calls = []

    def run(name, seconds):
        calls.append(name)
        time.sleep(seconds)

    found = ratio(lambda: run("slow", 0.04), lambda: run("fast", 0.02), 3)
    assert calls == ["slow", "fast"] * 5  # two calls of each before, to compile
    assert 1.2 < found["ratio"] < 3.0
    assert found["low"] <= found["ratio"] <= found["high"]
    assert found["against_seconds"] < found["seconds"]


@pytest.mark.slow
def test_memory_of_a_trajectory_gradient_grows_by_the_stored_states(quick_compilation):
    case = cost.residual_mlp(width=64, depth=1, batch=40)
    memory = [cost.working_bytes(cost.trajectory_gradient(case, k)[2]) for k in (4, 12)]
    state = case.batch * 4 * np.prod(case.shape)
    assert 0.9 < (memory[1] - memory[0]) / (8 * state) < 1.5


@pytest.mark.slow
def test_a_step_takes_the_same_memory_for_any_number_of_classes(quick_compilation, monkeypatch):
    """And far more where every class takes part in it."""
    settings = {"num_particles": 4, "num_targets": 6, "times": (1.0, 0.5, 0.0)}
    small = dataclasses.replace(conditions.default_objective(), **settings)
    monkeypatch.setattr(conditions, "default_objective", lambda: small)
    options = argparse.Namespace(width=8, depth=1)
    few, many = (conditions.step_of(count, 10, options) for count in (10, 1000))
    assert few.working_bytes < many.working_bytes < 1.5 * few.working_bytes
    assert conditions.step_of(40, 40, options).working_bytes > 3 * few.working_bytes
    assert np.isfinite(many.run()["loss"])


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", gradient_noise.contenders(1024))
def test_every_objective_calls_the_denoiser_as_often(name):
    """Rows of all calls, as they are traced: a scan traces its body once, for K steps."""
    rows = []

    def apply(params, x, t, c):
        rows.append(len(x))
        return x

    denoiser = from_function(apply, schedule=schedules.rectified_flow(), kind="x0", null=8)
    pairs, key = 1024, jax.random.key(0)
    contender = gradient_noise.contenders(pairs)[name]
    batch = contender.draw(key, lambda key, c: jax.random.normal(key, (len(c), 2)))
    objective = contender.objective
    jax.eval_shape(lambda: objective(key, guidance.constant(1.0), denoiser, (), batch))
    if name == "learned:trajectory":  # 3 K pairs a particle
        steps = 3 * (len(gradient_noise.TIMES) - 1)
        assert 0.8 * pairs < rows[0] / 2 * steps <= pairs
    else:
        assert sum(rows) == 2 * pairs


def test_relative_noise_of_known_gradients():
    """Independent entries of variance 4 around a mean of norm 5, in 100 dimensions: 400 / 25."""
    rng = np.random.default_rng(0)
    mean = np.zeros(100)
    mean[:2] = 3.0, 4.0
    grads = mean + 2.0 * rng.normal(size=(4000, 100))
    assert gradient_noise._relative_noise(grads) == pytest.approx(16.0, rel=0.05)


def row(method, *values):
    return {"method": method, "metrics": {"energy_distance": {"values": list(values)}}}


def test_levels_are_relative_to_unguided_by_seed():
    results = {
        "primary_metric": "energy_distance",
        "rows": [row("unguided", 1.0, 2.0), row("constant", 0.5, 1.2)],
    }
    found = levels.relative(results)
    assert found["unguided"] == (1.0, 0.0)
    np.testing.assert_allclose(found["constant"], (0.55, 0.05))


def test_transfer_measures_every_setting_once(tmp_path, monkeypatch):
    calls = []

    @dataclasses.dataclass(frozen=True)
    class Generator:
        times: object = None
        churn: float = 0.5
        solver: str = "heun"
        params: object = None
        skip: bool = True

        def share(self, num_samples):
            return num_samples // 8

        def nfe_of(self, guidance, per_class):
            return 2 * (len(self.times) - 1)

        def __call__(self, guidance, per_class, *, seed):
            calls.append((self.solver, len(self.times), self.churn, seed))
            return jnp.full(2, dict(guidance.values)["w"] + 1.0 / len(self.times))

    config = configs.load("configs/mixture.py")
    named = {f"constant({w:g})": guidance.constant(w) for w in (0.2, 0.1)}

    @contextlib.contextmanager
    def opened(path):
        with contextlib.closing(Workdir(path, config)) as workdir:
            yield SimpleNamespace(
                config=config, workdir=workdir, dataset=SimpleNamespace(test=None, num_classes=8),
                results={"command": "run"}, guidance=lambda: named, generator=Generator,
            )  # fmt: skip

    monkeypatch.setattr(transfer.finished, "opened", opened)
    monkeypatch.setattr(transfer, "ClassEnergyDistance", lambda *_: lambda x: x)
    chosen = argparse.Namespace(workdir=tmp_path, seeds=2)
    found = transfer.measure(chosen)
    assert transfer.measure(chosen) == found
    settings = len(sampling.SOLVERS) * len(transfer.STEPS)
    assert len(calls) == len(set(calls)) * 2 == settings * 2 * 2
    assert {churn for _, _, churn, _ in calls} == {0.0}
    head, _, worse, better = markdown.table(found).splitlines()
    assert head.startswith("| method | ddim 8 | ddim 16 | ddim 32 |")
    assert better.startswith("| constant(0.1) | **0.2111** |")
    assert (worse.count("**"), better.count("**")) == (0, 2 * settings)
    assert list(transfer.figures(found)) == [""]


@pytest.mark.slow
def test_the_particles_and_the_rows_of_agreement_have_one_loss():
    """In double precision; the gradient against central differences."""
    noises, step = agreement.draw(5), 1e-6
    omega, where = np.full((agreement.GROUPS, 4), 0.7), np.zeros((agreement.GROUPS, 4))
    where[:, 1] = step
    times = [np.full(agreement.GROUPS, t) for t in (0.3, 0.6)]
    for settings in agreement.STEPS:
        path = agreement.with_gradient(agreement.particle_path(*settings))
        loss, slope = agreement.in_float64(path, noises, omega, *times)
        ahead, behind = (
            agreement.in_float64(path, noises, omega + by, *times)[0] for by in (where, -where)
        )
        near = 1e-6 * np.abs(slope).max()  # by the size of the gradient, not of what is left of it
        np.testing.assert_allclose(slope[:, 1], (ahead - behind) / (2 * step), rtol=0.0, atol=near)
        rows = agreement.with_gradient(agreement.rows_path(*settings))
        frozen = agreement.in_float64(lambda *each: agreement.online_rows(each), *noises)
        for ours, theirs in zip(
            agreement.in_float64(rows, frozen, omega, *times), (loss, slope), strict=True
        ):
            near = 3e-6 * np.abs(theirs).max()  # of products in float32
            np.testing.assert_allclose(ours, theirs, rtol=0.0, atol=near)


def test_rows_in_few_dimensions_have_the_products_of_those_in_many():
    rows = agreement.online_rows(agreement.draw(40))
    found = agreement.statistics_rows(rows)
    pair = [np.concatenate([np.float64(each) for each in some], axis=1) for some in (rows, found)]
    ours, theirs = (each @ each.swapaxes(1, 2) for each in pair)
    np.testing.assert_allclose(theirs, ours, atol=2e-4)
    assert found.z.shape[-1] == 20


def test_the_time_of_a_run_says_how_many_networks_were_given():
    results = {"command": "run", "device": "cpu", "commit": "0" * 40, "seconds": {"tune": 90.0}}
    start, end = "`run` on cpu: 1.5 minutes in all", "; commit 000000000000."
    for given, said in (([], ""), (["a", "b"], ", without training 2 networks of another run")):
        assert tables.provenance(results | {"given_networks": given}).strip() == start + said + end


INCEPTION = ("evaluation.inception_path=weights", f"evaluation.inception_sha256={'0' * 64}")


@pytest.mark.parametrize(
    ("name", "fields", "given"),
    [
        ("fashion_mnist", (), ["selection_classifier", "features_2", "features_3", "features_4"]),
        ("fashion_mnist", ("features.num_networks=1",), ["selection_classifier"]),
        ("mixture", ("denoiser.level=exact",), []),
        ("imagenet64", INCEPTION, []),
    ],
)
def test_networks_that_no_stage_trained_were_given(name, fields, given):
    config = configs.to_dict(configs.load(f"configs/{name}.py", fields))
    seconds = dict.fromkeys(("denoiser", "classifier", "features", "tune"), 1.0)
    assert publish._given(config, seconds) == given


def test_stages_gone_through_twice_count_twice(tmp_path):
    lines = [("denoiser", 1.5), ("tune", 2.0), ("tune", 0.25)]
    text = "".join(json.dumps({"stage": s, "seconds": n}) + "\n" for s, n in lines)
    (tmp_path / "timings.jsonl").write_text(text)
    assert publish._seconds(tmp_path) == {"denoiser": 1.5, "tune": 2.25}


# Tables


def summary(*values):
    return {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)), "values": values}


def test_a_table_shows_what_its_columns_say():
    columns = [
        text("name", "name") | {"best": "own"},
        number("a.b", "mean", "+.2f") | {"best": "least"},
        number("bytes", "GB", ".1f") | {"unit": 1e9, "missing": "none"},
        number("", "range", "{low:.1f} to {high:.1f}"),
        text("params", "selected"),
        text("fine", "fine"),
    ]
    rows = [
        {"name": "x", "own": True, "a": {"b": summary(1.0, 3.0)}, "bytes": 2e9, "params": {}},
        {"name": "y", "own": False, "a": {"b": summary(1.0, 2.0)}, "low": 0.25, "high": 1},
        {"name": "z", "own": False, "a": {}, "bytes": "failed", "params": {"w": 1.5, "lo": 0.0}},
    ]
    rows[1] |= {"fine": True, "params": {"w": [1.0, 2.0]}}
    assert markdown.table({"columns": columns, "rows": rows, "note": "Below."}).splitlines() == [
        "| name | mean | GB | range | selected | fine |",
        "|---|---:|---:|---:|---|---|",
        "| **x** | +2.00 ± 1.00 | 2.0 |  | none |  |",
        "| y | **+1.50 ± 0.50** | none | 0.2 to 1.0 | one interval for each class | yes |",
        "| z |  | failed |  | w 1.5, lo 0 |  |",
        "",
        "Below.",
    ]


def test_the_best_is_sought_within_rows_of_a_kind_and_the_first_of_equals_is_bold():
    values = [(1, 0), (1, 0), (0, 1)]
    rows = [{"method": f"m{i}", "v": v, "k": k} for i, (v, k) in enumerate(values)]
    column = number("v", "v", "d") | {"best": "most", "within": "k"}
    results = {"things": rows, "tables": {"further": {"columns": [column], "rows": "things"}}}
    lines = markdown.table(results, "further").splitlines()[2:]
    assert lines == ["| **1** |", "| 1 |", "| **0** |"]
    results["tables"]["further"]["only"] = ["m2", "m1"]
    assert markdown.everything(results).splitlines()[2:] == ["| **0** |", "| **1** |"]
    decisive = [number("mean", "m", "g") | {"best": "decisive"}]
    gaps = [{"mean": mean, "standard_error": 1.0} for mean in (-3, 2)]
    lines = markdown.table({"columns": decisive, "rows": gaps}).splitlines()[2:]
    assert lines == ["| **-3** |", "| 2 |"]


def published():
    return sorted(file.stem for file in tables.RESULTS.glob("*.json"))


@pytest.mark.parametrize("name", published())
def test_published_results_carry_their_columns(name):
    """Those of runs are the ones that a run published today would carry."""
    results = read_json(tables.RESULTS / f"{name}.json")
    assert markdown.everything(results).count("|") > 10
    if "constant_screening" in results:
        carried = json.loads(json.dumps(tables.of_run(results)))
        assert {key: results[key] for key in carried} == carried


def test_documents_hold_the_tables_of_published_results():
    for file in documents.DOCUMENTS:
        text = file.read_text()
        assert documents.rewritten(text) == text
    stale = "<!-- table: gram-cost-digits -->\nold\n<!-- end -->"
    assert "| asked once | 1,048,576 |" in documents.rewritten(stale)
    assert "old" not in documents.rewritten(stale)


@pytest.mark.parametrize(
    ("module", "name", "count"),
    [
        ("studies.transfer", "digits-grids-transfer", 1),
        ("studies.ablations", "fashion_mnist-ablations", 12),
        ("studies.ablations", "fashion_mnist-conditions", 1),
        ("studies.ablations", "digits-conditions", 1),
        ("benchmarks.checks.conditions", "benchmark-conditions-cpu", 1),
        ("benchmarks.gram.cost", "gram-cost-digits", 1),
        ("benchmarks.gram.examples", "gram-examples-digits", 1),
        ("benchmarks.gram.warm", "gram-warm-digits", 1),
        ("benchmarks.gram.rank", "gram-rank-digits", 1),
        ("benchmarks.checks.gradient_noise", "gradient-noise", 1),
    ],
)
def test_figures_are_drawn_from_published_results(module, name, count):
    made = importlib.import_module(f"experiments.{module}").STUDY
    assert len(made.figures(read_json(tables.RESULTS / f"{name}.json"))) == count


# Commands

ROOMS = ("studies", "benchmarks")
LEVELS = argparse.Namespace(results="digits-under,digits-well")


def run(command, *words):
    name = f"experiments.studies.{command}"
    study.main("experiments.studies", {command: name}, [command, *words])


def commands():
    """Every command and its module."""
    mains = {room: importlib.import_module(f"experiments.{room}.__main__") for room in ROOMS}
    return [(room, *each) for room, main in mains.items() for each in main.MODULES.items()]


@pytest.mark.parametrize(("room", "command", "module"), commands())
def test_every_command_says_what_it_does_and_takes(room, command, module, capsys):
    with pytest.raises(SystemExit):
        study.main(f"experiments.{room}", {command: module}, ["--help"])
    line = capsys.readouterr().out.splitlines()[-1].strip()
    documentation = importlib.import_module(module).__doc__
    assert line.split(maxsplit=1) == [command, documentation.splitlines()[0]]
    assert f"python -m experiments.{room} {command}" in documentation
    with pytest.raises(SystemExit):
        study.main(f"experiments.{room}", {command: module}, [command, "--help"])
    assert "--name" in capsys.readouterr().out


def test_a_command_publishes_what_it_has_measured(tmp_path, monkeypatch, capsys):
    (tmp_path / "docs").mkdir()
    (tmp_path / "results").mkdir()
    results = {"columns": [number("a", "a", "d")], "rows": [{"a": 3}]}
    found = levels.measure(LEVELS)
    fake = study.Study(
        measure=lambda chosen: results,
        arguments=lambda add: add("--workdir"),
        figures=lambda results: levels.figures(found),
    )
    monkeypatch.setattr(transfer, "STUDY", fake)
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    monkeypatch.setattr(tables, "RESULTS", tmp_path / "results")
    run("transfer", f"--workdir={tmp_path / 'run'}", "--name=some")
    written = read_json(tmp_path / "results" / "some.json")
    assert written["rows"] == results["rows"]
    assert written["command"] == "python -m experiments.studies transfer --workdir=..."
    assert written["commit"]
    assert read_json(tmp_path / "run" / "transfer.json") == written
    assert (tmp_path / "docs" / "some.png").stat().st_size > 1000
    report = (tmp_path / "run" / "report" / "transfer.md").read_text()
    assert "| 3 |" in report
    assert "![transfer](transfer.png)" in report
    assert "| 3 |" in capsys.readouterr().out


def test_a_mistake_ends_a_command_with_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        run("levels", "--results=none")
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
