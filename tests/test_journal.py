import json

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.journal import Journal, schedule_key
from experiments.workdir import WorkdirError
from lgd import guidance

TIMES = jnp.linspace(1.0, 0.0, 9)


def never():
    raise AssertionError("measured again")


def test_value_is_measured_once_and_comes_back_to_the_bit(tmp_path):
    value = {"a": [0.1 + 0.2, float(np.float32(1) / 3)], "b": 1e-300}
    journal = Journal(tmp_path / "measured.jsonl")
    assert journal("one", lambda: value) == value
    assert journal("one", never) == value
    assert Journal(tmp_path / "measured.jsonl")("one", never) == value


def test_line_cut_off_is_measured_again_and_the_file_stays_whole(tmp_path):
    file = tmp_path / "measured.jsonl"
    Journal(file)("one", lambda: 1)
    with file.open("a") as stream:
        stream.write('{"key": "two", "va')
    journal = Journal(file)
    assert (journal("one", never), journal("two", lambda: 2)) == (1, 2)
    assert [json.loads(line)["key"] for line in file.read_text().splitlines()] == ["one", "two"]


def test_damage_in_the_middle_is_named(tmp_path):
    file = tmp_path / "measured.jsonl"
    file.write_text('{"key": "one", "va\n{"key": "two", "value": 2}\n')
    with pytest.raises(WorkdirError, match=r"measured.jsonl:1: expected a JSON object"):
        Journal(file)


def test_schedules_are_told_apart_by_what_they_do_on_the_grid():
    def key(omega_fn, times=TIMES, num_classes=3):
        return schedule_key(omega_fn, times, num_classes)

    same = [guidance.constant(0.0), guidance.limited_interval(0.0, 0.2, 0.5)]
    assert key(same[0]) == key(same[1])
    per_class = guidance.limited_interval_per_class([1.0, 1.0, 2.0], [0.0] * 3, [1.0] * 3)
    others = [guidance.constant(1.0), guidance.constant(1.0 + 1e-6), per_class]
    assert len({key(fn) for fn in [same[0], *others]}) == 4
