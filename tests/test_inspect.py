"""A guidance file in words and a picture: what was planted in it is found."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lgd
from experiments import inspect, inspection
from lgd import encoders, omega, plots, schedules

ROOT = Path(__file__).resolve().parents[1]
TIMES = tuple(np.linspace(1.0, 0.0, 11).tolist())
NAMES = ["cat", "dog", "cow"]
FLOW = schedules.rectified_flow()


def planted():
    """An interval of 2 for all from t = 0.3 on, and a peak of 5 for dogs at t = 0.5."""
    values = np.where(np.asarray(TIMES[:-1]) <= 0.31, 2.0, 0.0) * np.ones((3, 1))
    values[1, 5] = 5.0
    return values


def table(values=None, rows=None, **more):
    values = planted() if values is None else values
    model = omega.StepTable(times=TIMES, rows=rows or omega.ByLabel(len(values)))
    return lgd.Guidance(model, {"values": jnp.asarray(values)}, "init", **{"schedule": FLOW} | more)


def grid(values, names=NAMES):
    return inspection.Grid(np.asarray(values), np.asarray(TIMES), names, FLOW)


def options(file, out, **more):
    given = {"steps": 0, "names": [], "conditions": None, "schedules": []}
    return argparse.Namespace(guidance=file, out=out, **given | more)


def run(folder, guidance, **more):
    file = folder / "mine.safetensors"
    lgd.save(guidance, file)
    return inspect.inspect(lgd.load(file), options(file, folder, **more))


@pytest.mark.slow
def test_it_says_when_and_for_whom_and_draws_it(tmp_path):
    said = run(tmp_path, table(), names=NAMES, schedules=["constant:0.5"])
    assert "10 steps from t = 1 to 0, 3 conditions: omega from 0 to 5, mean 0.767." in said
    assert "it guides most at t = 0.3 (step 8, sigma 0.3, logsnr 1.69), mean omega 2," in said
    assert "least at t = 1 (step 1, sigma 1, logsnr -20), 0." in said
    assert "it guides most for dog (mean omega 1.1, up to 5 at t = 0.5); least for " in said
    assert "It is off (below 0.01) in 67% of all steps and conditions." in said
    assert "  limited_interval(2, 0, 0.3) " in said
    (line,) = (line for line in said.splitlines() if line.startswith("  constant(0.5) "))
    distance = np.sqrt(np.mean((planted() - 0.5) ** 2))
    assert float(line.split()[1]) == pytest.approx(distance, abs=1e-4)
    assert (tmp_path / "mine.txt").read_text("utf-8") == f"{said}\n"
    assert (tmp_path / "mine.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_schedule_that_was_planted_is_the_nearest():
    t = np.asarray(TIMES[:-1])
    pattern = np.where((t >= 0.195) & (t <= 0.405), 1.7, 0.0)
    near = inspection.nearest(grid(np.tile(pattern, (3, 1))))
    assert near[0].distance == pytest.approx(0.0, abs=1e-6)
    assert near[0].share == pytest.approx(1.0)
    assert near[0].name in (
        "limited_interval(1.7, 0.2, 0.4)",
        "limited_interval, one for each condition",
    )
    assert [each.distance for each in near] == sorted(each.distance for each in near)
    (constant,) = (each for each in near if each.name.startswith("constant("))
    assert constant.omega == pytest.approx(pattern.mean())
    assert constant.distance == pytest.approx(pattern.std())


def test_weights_that_are_alike_or_next_to_none_are_called_so():
    assert "at every step alike, mean omega 0.5" in inspection.words(
        grid(np.full((3, 10), 0.5)), []
    )
    assert "for all conditions alike" in inspection.words(grid(np.full((3, 10), 0.5)), [])
    assert "hardly guides at all" in inspection.words(grid(np.full((3, 10), 1e-4)), [])
    assert "does not tell conditions apart" in inspection.words(grid(np.ones((1, 10)), ["all"]), [])
    assert "negative in 10%" in inspection.words(grid(-np.eye(10), list("abcdefghij")), [])


def test_names_that_a_run_left_beside_the_file_are_taken(tmp_path):
    asked = options(tmp_path / "mine.safetensors", tmp_path)
    (tmp_path / "mine.scales.json").write_text(json.dumps({name: [1] for name in NAMES}), "utf-8")
    assert inspect._names(asked, 3) == NAMES
    assert inspect._names(asked, 2) == ["0", "1"]
    (tmp_path / "mine.scales.json").write_text("{", "utf-8")
    assert inspect._names(asked, 2) == ["0", "1"]
    with pytest.raises(inspect.InspectError, match="--names: expected 2 names, got 1"):
        inspect._names(options(asked.guidance, tmp_path, names=["cat"]), 2)


def test_conditions_are_those_that_a_guidance_tells_apart():
    centroids = {"values": jnp.zeros((2, 10)), "centroids": jnp.ones((2, 3))}
    model = omega.StepTable(times=TIMES, rows=omega.Nearest(2))
    assert len(inspection.known_conditions(lgd.Guidance(model, centroids, "init"))) == 2
    assert len(inspection.known_conditions(table(np.zeros((1, 10)), rows=omega.One()))) == 1
    network = omega.Network(schedule=FLOW, encoder=encoders.Labels(4), width=4, depth=2)
    params = network.init(jax.random.key(0), jnp.arange(4))
    found = lgd.Guidance(network, params, "init", schedule=FLOW)
    assert len(inspection.known_conditions(found)) == 4
    assert len(inspection.own_times(found, 0)) == 26


@pytest.mark.slow
def test_guidance_of_vectors_needs_some(tmp_path):
    network = omega.Network(schedule=FLOW, encoder=encoders.Vectors(2), width=4, depth=2)
    params = network.init(jax.random.key(0), jnp.zeros((1, 2)))
    found = lgd.Guidance(network, params, "init")
    with pytest.raises(inspect.InspectError, match=r"expected --conditions=FILE\.npy"):
        run(tmp_path, found)
    np.save(tmp_path / "c.npy", np.eye(2, dtype=np.float32))
    said = run(tmp_path, found, conditions=tmp_path / "c.npy", steps=3)
    assert "3 steps from t = 1 to 0, 2 conditions" in said
    np.save(tmp_path / "c.npy", np.zeros((2, 5), np.float32))
    with pytest.raises(inspect.InspectError, match="expected conditions of this guidance"):
        run(tmp_path, found, conditions=tmp_path / "c.npy")


@pytest.mark.slow
def test_several_directions_have_a_picture_each(tmp_path):
    one = omega.StepTable(times=TIMES, rows=omega.ByLabel(3))
    params = ({"values": jnp.asarray(planted())}, {"values": jnp.zeros((3, 10))})
    both = lgd.Guidance(omega.PerDirection(models=(one, one)), params, "init")
    said = run(tmp_path, both)
    assert said.count("When: ") == 2
    assert {each.name for each in tmp_path.glob("*.png")} == {"mine-0.png", "mine-1.png"}


def test_many_conditions_and_single_steps_are_drawn():
    for shape in ((1, 1), (60, 2), (2, 30)):
        t = np.linspace(1.0, 0.5, shape[1])
        figure = plots.omega_inspection(
            -np.ones(shape),
            t=t,
            condition_names=["a$"] * shape[0],
            schedules={"mine": t},
            title="x",
        )
        assert len(figure.axes) == (1 if shape[0] == 1 else 3)


def command(*words):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "experiments.inspect", *words],
        capture_output=True, text=True, cwd=ROOT, env=environment, timeout=300,
    )  # fmt: skip


@pytest.mark.slow
def test_the_command_helps_and_names_what_is_missing_or_foreign(tmp_path):
    helped = command("--help")
    assert helped.returncode == 0
    for word in ("--guidance FILE", "--schedules", "--names", "NAME.png"):
        assert word in helped.stdout
    foreign = tmp_path / "foreign.safetensors"
    foreign.write_bytes(b"PK\x03\x04")
    for file, words in ((tmp_path / "none", "found none"), (foreign, "got a zip archive")):
        ended = command(f"--guidance={file}", f"--out={tmp_path}")
        assert (ended.returncode, ended.stdout) == (2, "")
        assert len(ended.stderr.splitlines()) == 1
        assert ended.stderr.startswith(f"{file}: expected a guidance written by lgd.save")
        assert words in ended.stderr
