import threading
import time

import pytest

from lgd.machinery import stall, stopping


def test_a_step_that_does_not_end_is_reported_once_with_the_stacks_of_all_threads(capfd):
    def a_loader_that_blocks():
        time.sleep(0.9)

    loader = threading.Thread(target=a_loader_that_blocks)
    with stall.watched(0.2):
        stopping.requested("step 12")
        loader.start()
        loader.join()
    said = capfd.readouterr().err
    assert said.count("no step ended for") == 1
    assert "the last: step 12" in said
    assert "a_loader_that_blocks" in said
    assert "test_stall.py" in said


def test_steps_that_end_in_time_are_not_reported(capfd):
    with stall.watched(0.4):
        for step in range(8):
            stopping.requested(f"step {step}")
            time.sleep(0.1)
    assert not capfd.readouterr().err


@pytest.mark.parametrize("error", [None, KeyError])
def test_the_watch_ends_with_its_block(error):
    before = threading.active_count()
    try:
        with stall.watched(60.0):
            assert threading.active_count() == before + 1
            if error is not None:
                raise error
    except KeyError:
        pass
    assert threading.active_count() == before
