import itertools
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import build, build_guidance
from experiments import config as configs
from experiments.publish import study
from experiments.stages.guidance import Training
from experiments.studies import rank_schedules, ranking
from experiments.workdir import Workdir
from lgd import gram, guidance, objectives, omega, schedules
from lgd.data import spiral
from lgd.denoisers import Directions
from lgd.exchange.schedules import table_entry, write
from lgd.gram import StatisticsError
from lgd.training import Trainer
from lgd.types import Batch

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]

SCHEDULE = schedules.rectified_flow()
WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
QUIET = Trainer(progress=False)


def collected(path, schedule=SCHEDULE, num_examples=4096, **particles):
    denoiser, params = spiral.mixture(schedule)
    data = spiral.load(8, 1024, 8, schedule=schedule).validation
    gram.collect(
        path,
        denoiser,
        params,
        data,
        num_examples=num_examples,
        particles=gram.Particles(**particles),
        trainer=QUIET,
    )
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return collected(tmp_path_factory.mktemp("stats") / "exact")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return collected(tmp_path_factory.mktemp("stats") / "small", num_examples=256)


def constants(weights=WEIGHTS):
    return {f"constant({w:g})": guidance.constant(w) for w in weights}


def scored(folder, named, **settings):
    found = rank_schedules.read_statistics(folder)
    return gram.score(found, named, schedule=SCHEDULE, **settings)


def ranked(scores):
    return [row["name"] for row in ranking.rank(scores, "constant(0)")]


def main(argv):
    name = rank_schedules.__name__
    study.main("experiments.studies", {"rank_schedules": name}, ["rank_schedules", *argv])


def test_l2_ranks_constants_by_the_distance_to_the_optimum_of_the_particles(folder):
    """The l2 loss of constants is a parabola; its least value is found here on particles."""
    objective = objectives.l2()
    denoiser, params = spiral.mixture(SCHEDULE)
    data = spiral.load(8, 4096, 8, schedule=SCHEDULE).validation
    batch = Batch(jnp.asarray(data.x), jnp.asarray(data.c))

    def loss(w):
        key, omega_fn = jax.random.key(3), guidance.constant(w)
        return objective(key, omega_fn, denoiser, params, batch)[0]

    low, middle, high = (float(loss(w)) for w in (0.0, 1.0, 2.0))
    curvature = low - 2.0 * middle + high
    optimum = 1.0 - 0.5 * (high - low) / curvature
    weights = (-1.0, -0.3, 0.0, 0.2, 0.6, 2.0)
    scores = scored(folder, constants(weights), objective=objective)
    expected = sorted(weights, key=lambda w: abs(w - optimum))
    gaps = [abs(w - optimum) for w in expected]
    assert all(near < 0.9 * far for near, far in itertools.pairwise(gaps))  # beyond the noise
    assert ranked(scores) == [f"constant({w:g})" for w in expected]


def test_exact_denoiser_unguided_is_the_best_constant_for_marginals(tmp_path):
    """The deterministic step of an exact denoiser has the marginals; guidance leaves them."""
    path = collected(tmp_path / "condition", members="condition", num_particles=8)
    objective = objectives.ConditionalMarginalConsistency(group_size=8, beta=1.0)
    scores = scored(path, constants(), objective=objective)
    assert ranked(scores) == [f"constant({w:g})" for w in WEIGHTS]
    assert all(row["decisive"] for row in ranking.rank(scores, "constant(0)")[2:])


def test_a_ranking_holds_paired_intervals(folder):
    scores = scored(folder, constants(), objective=objectives.SelfConsistency())
    rows = {row["name"]: row for row in ranking.rank(scores, "constant(0)")}
    gap = rows["constant(0.25)"]["difference"]
    direct = scores.mean("constant(0.25)") - scores.mean("constant(0)")
    np.testing.assert_allclose(gap["mean"], direct, rtol=1e-9)
    assert ranking.half_width(gap) < 0.5 * ranking.half_width(rows["constant(0.25)"]["loss"])
    assert rows["constant(0)"]["difference"] == {"mean": 0.0, "interval": [0.0, 0.0]}
    assert not rows["constant(0)"]["decisive"]
    assert rows["constant(4)"]["decisive"]


def test_maps_and_classes_add_up_to_the_difference(folder):
    scores = scored(folder, constants(), objective=objectives.SelfConsistency())
    total, error = scores.difference("constant(1)", "constant(0)")
    found = scores.difference_map("constant(1)", "constant(0)", num_bins=12)
    np.testing.assert_allclose(np.nansum(found.values), total, rtol=1e-6)
    below = found.s_edges[:-1, None] > found.t_edges[None, 1:]
    assert np.isnan(found.values[below]).all()
    assert np.isfinite(found.values).any()
    each = scores.difference_by_class("constant(1)", "constant(0)")
    assert each.labels.tolist() == list(range(8))
    shares = [scores.weights[scores.labels == k].sum() for k in range(8)]
    np.testing.assert_allclose(np.dot(shares, each.means) / len(scores.t), total, rtol=1e-6)
    assert (each.standard_errors > error).all()


def test_scores_do_not_depend_on_how_examples_are_cut(folder, monkeypatch):
    """Parts of one length, the last filled up: in law the same, and no example is lost."""
    settings = {"objective": objectives.SelfConsistency(), "num_draws": 1}
    whole = scored(folder, constants(), **settings)
    monkeypatch.setattr(sys.modules["lgd.gram.score"], "_CHUNK", 1000)
    parts = scored(folder, constants(), **settings)
    assert whole.losses.shape == parts.losses.shape == (1, len(WEIGHTS), len(whole.t))
    assert parts.s.shape == whole.s.shape
    np.testing.assert_array_equal(parts.t, whole.t)
    for name in whole.names:
        gap = abs(whole.mean(name) - parts.mean(name))
        assert gap < 5.0 * whole.standard_error(name)


@pytest.mark.parametrize("make", schedules.BY_NAME.values())
def test_the_forward_process_comes_back(make, tmp_path):
    path = collected(tmp_path / "s", schedule=make(), num_examples=256)
    found = rank_schedules.read_statistics(path)
    assert gram.schedule_behind(found) == make()


def test_another_forward_process_is_refused(small, capsys, tmp_path):
    path = collected(tmp_path / "s", schedule=schedules.linear_vp(beta_max=10.0), num_examples=256)
    assert refused(capsys, f"--stats={path}", "--schedules=constant:1") == [
        "schedule: expected one of RectifiedFlow(), Cosine(), LinearVP(beta_min=0.1, "
        "beta_max=20.0), EDM(sigma_min=0.002, sigma_max=80.0, rho=7.0), got "
        "LinearVP(beta_min=0.1, beta_max=10.0); lgd.gram.score takes any other as an argument"
    ]


def test_the_command_ranks_and_leaves_files(small, tmp_path):
    mine = tmp_path / "mine.json"
    times = schedules.uniform_times(10)
    entry = table_entry(guidance.constant(4.0), name="$4$ [red]", times=times, num_strata=8)
    write(mine, [entry])
    command = [
        *(sys.executable, "-m", "experiments.studies", "rank_schedules", f"--stats={small}"),
        *(f"--schedules=constant:0.5,{mine}", "--schedules=limited_interval:1:0.2:0.8"),
        *("--law=grid", "--steps=10", "--churn=0", "--num_draws=1", f"--out={tmp_path / 'out'}"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert r"\$4\$ [red]" in done.stdout
    found = json.loads((tmp_path / "out" / "rank_schedules.json").read_text())
    names = {row["name"] for row in found["rows"]}
    expected = {"unguided", "constant(0.5)", "limited_interval(1, 0.2, 0.8)", "$4$ [red]"}
    assert names == expected
    losses = [row["loss"]["mean"] for row in found["rows"]]
    assert losses == sorted(losses)
    assert found["baseline"] == "unguided"
    report = tmp_path / "out" / "report"
    text = (report / "rank_schedules.md").read_text()
    for name in ("differences", "maps", "classes"):
        assert (report / f"rank_schedules-{name}.png").stat().st_size > 5000
        assert f"(rank_schedules-{name}.png)" in text
    again = ranking.figures(found)  # of what was written
    assert list(again) == ["differences", "maps", "classes"]


def refused(capsys, *argv):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 2
    return capsys.readouterr().err.strip().splitlines()


def test_all_mistakes_come_in_one_message(small, capsys, tmp_path):
    mine = tmp_path / "mine.json"
    mine.write_text(json.dumps([{"name": "a", "kind": "constant", "w": "x", "W": 1}]))
    assert refused(capsys, f"--stats={small}", f"--schedules=constant,{mine}") == [
        "constant: expected constant:W, got 0 numbers",
        f"{mine}: entry 1 (a): w: expected a number from -1000 to 1000, got 'x'",
        f"{mine}: entry 1 (a): expected the fields w, got also 'W'",
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--beta=2.5"], "expected 0 < beta <= 2, got 2.5"),
        (["--churn=-1"], "expected churn in [0, 1], got -1.0"),
        (["--num_draws=0"], "num_draws: expected >= 1, got 0"),
        (["--beta=x"], "argument --beta: invalid float value: 'x'"),
        (["--baseline=best"], "--baseline: expected one of the schedules, got 'best'"),
        (["--draw=a,b(1,2)"], "--draw: expected one of the schedules, got 'b(1,2)'"),
    ],
)
def test_wrong_flags(small, capsys, flags, message):
    assert refused(capsys, f"--stats={small}", *flags)[-1].endswith(message)


def test_bad_folders(small, capsys, tmp_path):
    assert "expected a manifest of statistics" in refused(capsys, f"--stats={tmp_path}")[0]
    missing = tmp_path / "run"
    lines = refused(capsys, f"--stats={small}", f"--workdir={missing}")
    assert lines[0].startswith(f"--workdir: {missing}: expected the folder of a finished run")


@pytest.fixture
def run(tmp_path):
    """A finished run with one snapshot of what it learned, and that."""
    fields = ["denoiser.level=exact", "guidance.methods=l2", "guidance.one_step.num_steps=40"]
    config = configs.load("configs/mixture.py", fields)
    workdir, dataset = Workdir(tmp_path / "run", config), build.dataset(config)
    model = build_guidance.omega_model(config, "l2", dataset)
    params = model.init(jax.random.key(0), dataset.conditions)
    workdir.save_params(Training("l2").snapshot(30), params)
    selected = {
        "unguided": {},
        "limited_interval": {"w": 1.5, "lo": 0.2, "hi": 0.8},
        "learned:l2": {"step": 30},
    }
    rows = [{"method": name, "family": name, "params": each} for name, each in selected.items()]
    workdir.write_json(workdir.path / "results.json", {"rows": rows})
    return workdir.path, omega.bind(model, params)


def test_the_rows_of_a_run_are_ranked_as_selected(run, small, tmp_path, capsys):
    path, learned = run
    schedules, classes = rank_schedules.rows_of_run(str(path))
    assert (list(schedules), classes) == (["unguided", "limited_interval", "learned:l2"], 8)
    t = jnp.asarray([0.1, 0.4, 0.7, 0.99], jnp.float32)
    at = {"s": 0.5 * t, "t": t, "c": jnp.asarray([0, 3, 7, 1], jnp.int32)}
    np.testing.assert_allclose(schedules["learned:l2"](**at), learned(**at))
    interval = guidance.limited_interval(1.5, 0.2, 0.8)
    np.testing.assert_array_equal(schedules["limited_interval"](**at), interval(**at))
    main([f"--stats={small}", f"--workdir={path}", "--num_draws=1", f"--out={tmp_path / 'out'}"])
    table = capsys.readouterr().out
    assert all(f"| {name} |" in table for name in schedules)
    (path / "results.json").write_text('{"rows": [3]}')
    (line,) = refused(capsys, f"--stats={small}", f"--workdir={path}")
    assert line.startswith(f"--workdir: {path}: expected the folder of a finished run, got ")


def test_statistics_of_several_directions_are_refused(tmp_path):
    denoiser, params = spiral.mixture(SCHEDULE)
    two = Directions(denoiser, {"weak": denoiser})
    data = spiral.load(8, 1024, 8, schedule=SCHEDULE).validation
    path = tmp_path / "two"
    gram.collect(path, two, (params, {"weak": params}), data, num_examples=256, trainer=QUIET)
    with pytest.raises(StatisticsError, match="directions: expected one"):
        rank_schedules.read_statistics(path)


@pytest.mark.parametrize(
    ("settings", "argv"),
    [
        ({"features": True}, []),
        ({"members": "mixed"}, ["--lam=0"]),
    ],
)
def test_other_statistics_are_ranked_too(tmp_path, capsys, settings, argv):
    path = collected(tmp_path / "other", num_examples=256, **settings)
    main([f"--stats={path}", "--schedules=constant:1", f"--out={tmp_path / 'out'}", *argv])
    assert "constant(1)" in capsys.readouterr().out
    assert (tmp_path / "out" / "report" / "rank_schedules-maps.png").exists()
