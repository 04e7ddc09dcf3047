"""Two processes of two devices each do what one process of four does, and end together."""

import re
import sys

import numpy as np
import pytest

from lgd.machinery import parallel
from lgd.machinery.checkpoint import CheckpointStore
from tests.run_two import run_two
from tests.two_processes import results, train

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Exit code and output of both processes, and what they left."""
    folder = tmp_path_factory.mktemp("together")
    module = [sys.executable, "-m", "tests.two_processes"]
    return run_two(lambda address, index: [*module, address, str(index), str(folder)]), folder


def test_two_processes_do_what_one_does(together, tmp_path):
    (first, second), folder = together
    assert "done 0" in first[1], first[1]
    assert "done 1" in second[1], second[1]
    assert {path.name for path in folder.iterdir()} == {"store", "stopped", "results.npz"}
    alone, found = results(tmp_path), np.load(folder / "results.npz")
    assert set(found) == set(alone)
    assert found["start"] == alone.pop("start")
    for name, value in alone.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_one_process_resumes_what_two_have_saved(together):
    _, folder = together
    with CheckpointStore(folder / "store") as store:
        state = train(parallel.make_mesh(2, 1), store=store)  # nothing left to do
    found = np.load(folder / "results.npz")
    np.testing.assert_array_equal(state.params["hidden"], found["hidden"])
    np.testing.assert_array_equal(state.ema["out"], found["ema"])


def test_a_signal_to_one_stops_both_after_the_same_step(together):
    (first, second), folder = together
    steps = [re.findall(r"^stopped (\d+)$", out, re.MULTILINE) for _, out in (first, second)]
    assert len(steps[0]) == 1
    assert steps[0] == steps[1]
    with CheckpointStore(folder / "stopped") as store:
        assert store.steps()[-1] == int(steps[0][0])


def test_only_the_first_process_shows_progress(together):
    (first, second), _ = together
    assert "learn omega" in first[1]
    assert "learn omega" not in second[1]


JOIN = """
import sys
from lgd.machinery import processes
try:
    processes.initialize(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), 15)
except processes.CountError as error:
    sys.exit(f"CountError: {error}")
"""


@pytest.mark.parametrize(
    ("counts", "codes", "words"),
    [
        (
            (2, 3),
            [1, 1],
            "expected one number in all processes, got 2 in process 0, 3 in process 1",
        ),
        ((3, 2), [2, 2], "within 15 s: fewer came, or some were told another number"),
        ((2, 2), [0, 0], ""),
    ],
)
def test_processes_that_were_told_different_numbers_all_say_so(counts, codes, words):
    command = [sys.executable, "-c", JOIN]
    ended = run_two(lambda address, index: [*command, address, str(counts[index]), str(index)])
    assert [code for code, _ in ended] == codes
    assert all(words in said and "Traceback" not in said for _, said in ended)


def test_one_that_fails_ends_both_and_says_why(together):
    """The first one waits for it in a step, until it is missed."""
    (first, second), _ = together
    assert first[0] != 0
    assert second[0] == 1
    assert "RuntimeError: no data" in second[1]
