import json

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lgd import guidance, omega
from lgd.evaluation.journal import Journal, JournalError, schedule_key


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
    with pytest.raises(JournalError, match=r"measured.jsonl:1: expected an object with key"):
        Journal(file)


@pytest.fixture(scope="module")
def any_file(tmp_path_factory):
    return tmp_path_factory.mktemp("any") / "file.jsonl"


VALUES = st.none() | st.floats() | st.text(max_size=8) | st.lists(st.integers(), max_size=3)
OBJECTS = st.dictionaries(st.sampled_from(["key", "value", "other"]), VALUES)
LINES = st.lists(OBJECTS.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=20))


@settings(max_examples=150, deadline=None, database=None)
@given(LINES.map(b"\n".join))
def test_any_file_is_read_or_refused_by_name(any_file, raw):
    any_file.write_bytes(raw)
    try:
        Journal(any_file)
    except JournalError as error:
        assert str(error).startswith(f"{any_file}:")  # noqa: PT017
        assert any_file.read_bytes() == raw


def test_schedules_are_told_apart_by_what_they_are():
    table = omega.StepTable(times=(1.0, 0.5, 0.0))
    learned = [omega.bind(table, {"values": jnp.asarray([[0.0, w]])}) for w in (1.0, 2.0)]
    schedules = [
        guidance.constant(0.0),
        guidance.constant(1.0),
        guidance.constant(1.0 + 1e-6),
        guidance.limited_interval(1.0, 0.2, 0.5),
        *learned,
    ]
    assert len({schedule_key(schedule) for schedule in schedules}) == 6
    assert schedule_key(guidance.constant(1.0)) == schedule_key(schedules[1])
    same = omega.bind(table, {"values": jnp.asarray([[0.0, 2.0]])})
    assert schedule_key(same) == schedule_key(learned[1])
    with pytest.raises(ValueError, match="expected a value with a name"):
        schedule_key(lambda s, t, c: t)


def test_a_value_that_could_not_be_read_back_is_not_written(tmp_path):
    journal, deep = Journal(tmp_path / "measured.jsonl"), [0.0]
    for _ in range(200):
        deep = [deep]
    with pytest.raises(ValueError, match="more than 100 lists"):
        journal("deep", lambda: deep)
    journal("fine", lambda: 1.0)
    assert list(map(Journal(tmp_path / "measured.jsonl").__contains__, ("deep", "fine"))) == [0, 1]
