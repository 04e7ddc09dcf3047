"""Long work says so soon and seldom, where output goes into a pipe; on a terminal it has bars."""

import io
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import rich

import lgd
from lgd.machinery import progress
from lgd.metrics.features import extract

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def clock(monkeypatch):
    """The first line comes after 0.2 s."""
    monkeypatch.setattr(progress, "FIRST_SECONDS", 0.2)


def test_first_lines_come_within_five_seconds_and_later_ones_every_thirty():
    assert 0 < progress.FIRST_SECONDS < 4
    assert progress.EVERY_SECONDS == 30


@pytest.mark.usefixtures("clock")
def test_what_is_over_soon_says_nothing(capsys):
    for _ in range(5):
        with progress.bar("short", 2) as advance:
            advance("a")
    time.sleep(0.3)
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("clock")
def test_long_work_says_so_though_no_step_ends(capsys, monkeypatch):
    """Such as a compilation."""
    monkeypatch.setattr(progress, "EVERY_SECONDS", 0.6)
    start = time.monotonic()
    with progress.bar("tune", 7):
        time.sleep(2.0)
    lines = capsys.readouterr().out.splitlines()
    assert 2 <= len(lines) <= 1 + (time.monotonic() - start) / 0.6
    assert all(line.startswith("tune 0/7, ") for line in lines)


@pytest.mark.usefixtures("clock")
def test_a_line_says_how_far_it_is(capsys):
    with progress.bar("tune", 2) as advance:
        for note in ("a", "b", "c"):  # more than was estimated
            advance(note)
        time.sleep(1.0)
    assert re.fullmatch(r"tune 3/3, \d s, c\n", capsys.readouterr().out)


@pytest.mark.usefixtures("clock")
def test_phases_in_one_another_are_told_of_once(capsys):
    with progress.phase("stage"):
        time.sleep(1.0)
        with progress.bar("inner", 1):
            time.sleep(1.0)
        time.sleep(0.1)
    assert [line[:5] for line in capsys.readouterr().out.splitlines()] == ["stage", "inner"]


@pytest.mark.usefixtures("clock")
def test_a_long_phase_of_short_ones_is_told_of(capsys):
    with progress.phase("stage"):
        for _ in range(20):
            with progress.bar("inner", 1):
                time.sleep(0.05)
    assert capsys.readouterr().out.startswith("inner 0/1")


@pytest.mark.usefixtures("clock")
def test_what_is_not_shown_hides_what_is_in_it(capsys):
    with progress.bar("outer", 1, show=False), progress.bar("inner", 1) as advance:
        time.sleep(1.0)
        advance("a")
    with progress.bar("next", 1):
        time.sleep(1.0)
    assert capsys.readouterr().out.startswith("next")


@pytest.mark.usefixtures("clock")
def test_a_stream_that_cannot_show_a_name_shows_the_rest(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "ascii"))
    with progress.bar("Fréchet", 1):
        time.sleep(1.0)
    assert raw.getvalue().startswith(b"Fr?chet 0/1")


@pytest.mark.usefixtures("clock")
def test_a_closed_stream_ends_no_work(monkeypatch):
    stream = io.StringIO()
    stream.close()
    monkeypatch.setattr(sys, "stdout", stream)
    with progress.bar("tune", 1):
        time.sleep(1.0)


def test_the_search_for_a_start_says_so(capsys, monkeypatch):
    monkeypatch.setattr(progress, "FIRST_SECONDS", 0.0)

    def loss(params, frozen, batch, key):
        time.sleep(0.5)  # while it compiles
        return (params**2).sum(), {}

    mesh = lgd.machinery.parallel.make_mesh(1)
    weights = {"strong": np.full(1, 2.0, np.float32), "weak": np.ones(1, np.float32)}
    batches = [lgd.types.Batch(np.zeros((1, 1), np.float32), np.zeros(1, np.int32))]
    best = lgd.starts.best_schedule(jax.random.key(0), loss, (), batches, weights, mesh=mesh)
    assert best == "weak"
    assert capsys.readouterr().out.startswith("choose the start 0/2, 0 s")


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
def test_the_phases_of_learning_say_so(capsys, monkeypatch):
    """The probe, the start search and the training, which all compile first."""
    monkeypatch.setattr(progress, "FIRST_SECONDS", 0.0)
    denoiser = lgd.denoisers.from_function(
        lambda params, x, t, c: params[c][:, None] + 0.0 * x,
        kind="x0",
        schedule=lgd.schedules.rectified_flow(),
        null=2,
    )
    labels = np.arange(64) % 2
    lgd.learn_guidance(
        jax.random.key(0),
        denoiser,
        jax.numpy.array([1.0, -1.0, 0.0]),
        np.where(labels == 0, 1.0, -1.0)[:, None].astype(np.float32),
        labels,
        objective=lgd.objectives.SelfConsistency(),
        start={"weak": lgd.guidance.constant(0.1), "strong": lgd.guidance.constant(1.0)},
        trainer=lgd.training.Trainer(
            optimizer=lgd.training.Optimizer(num_steps=2), mesh=lgd.machinery.parallel.make_mesh(1)
        ),
    )
    said = [line.split(" 0/")[0] for line in capsys.readouterr().out.splitlines()]
    names = ("look at the model", "choose the start", "learn omega: SelfConsistency")
    for name in names:
        assert any(line.startswith(name) for line in said), said


def test_features_of_many_examples_are_counted(capsys, monkeypatch):
    monkeypatch.setattr(progress, "FIRST_SECONDS", 0.0)

    def slow(x):
        time.sleep(0.2)
        return x

    extract(slow, np.ones((6, 2), np.float32), batch_size=2)
    assert capsys.readouterr().out.startswith("features of examples ")
    extract(slow, np.ones((2, 2), np.float32), batch_size=2)
    assert capsys.readouterr().out == ""


TERMINAL = """
import time
from lgd.machinery import progress
with progress.phase("stage"):
    with progress.bar("outer", 2) as advance:
        with progress.bar("inner", 3) as step:
            for _ in range(3):
                step("a note")
        advance("b"); advance("c")
print("end")
"""


def test_on_a_terminal_the_outer_bars_are_left():
    leader, follower = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", TERMINAL], stdout=follower, env=environment, cwd=ROOT
    )
    os.close(follower)
    seen = b""
    while True:
        try:
            part = os.read(leader, 10_000)
        except OSError:  # the end of a terminal
            break
        if not part:
            break
        seen += part
    os.close(leader)
    assert process.wait() == 0
    left = seen.decode().split("\r\n")
    assert any("outer" in line and "2/2" in line for line in left)
    assert "end" in left[-2]


def test_bars_in_one_another_are_drawn_by_one_display(monkeypatch):
    """Where several displays at once would be an error."""
    console = rich.console.Console(file=io.StringIO(), force_terminal=True, force_interactive=True)
    monkeypatch.setattr(rich, "_console", console)
    with progress.bar("outer", 1) as advance, progress.bar("inner", 2) as step:
        step("x")
        step("y")
        advance("z")
    assert not progress._BARS._tasks
    assert "outer" in console.file.getvalue()
