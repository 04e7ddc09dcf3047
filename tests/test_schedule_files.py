import json

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import schedule_kinds
from experiments.schedule_files import ScheduleError, read, standard_schedules, table_entry, write
from lgd import guidance, omega, schedules

T = jnp.asarray([0.05, 0.3, 0.5, 0.77, 0.999], jnp.float32)
S = 0.5 * T
C = jnp.asarray([0, 1, 2, 1, 0], jnp.int32)

KINDS = {
    "constant": ({"w": 0.5}, guidance.constant(0.5)),
    "limited_interval": ({"w": 1, "lo": 0.2, "hi": 0.8}, guidance.limited_interval(1.0, 0.2, 0.8)),
    "limited_interval_per_class": (
        {"w": [1, 2, 3], "lo": [0, 0.1, 0.2], "hi": [0.5, 0.6, 1]},
        guidance.limited_interval_per_class([1.0, 2.0, 3.0], [0.0, 0.1, 0.2], [0.5, 0.6, 1.0]),
    ),
    "clamp_linear": ({"cfg_scale": 1.5}, guidance.clamp_linear(1.5)),
    "linear": ({"cfg_scale": 1.5}, guidance.linear(1.5)),
    "cosine": ({"cfg_scale": 1.5}, guidance.cosine(1.5)),
    "clamp_cosine": ({"cfg_scale": 1.5, "cfg_floor": 0.9}, guidance.clamp_cosine(1.5, 0.9)),
    "power_cosine": ({"cfg_scale": 1.5, "power": 2}, guidance.power_cosine(1.5, 2.0)),
}


def values(omega_fn):
    return np.asarray(omega_fn(s=S, t=T, c=C))


def from_json(tmp_path, entries, num_classes=3):
    file = tmp_path / "mine.json"
    file.write_text(entries if isinstance(entries, str) else json.dumps(entries))
    return read([str(file)], num_classes=num_classes)


def errors_of(tmp_path, entries, num_classes=3):
    with pytest.raises(ScheduleError) as found:
        from_json(tmp_path, entries, num_classes)
    return [line.removeprefix(f"{tmp_path / 'mine.json'}: ") for line in found.value.errors]


@pytest.mark.parametrize("kind", KINDS)
def test_an_entry_is_the_schedule_of_the_library(kind, tmp_path):
    fields, expected = KINDS[kind]
    found = from_json(tmp_path, [{"name": "mine", "kind": kind, **fields}])
    np.testing.assert_array_equal(values(found["mine"]), values(expected))


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"limited_interval_per_class"}))
def test_a_word_is_the_schedule_of_the_library(kind):
    fields, expected = KINDS[kind]
    numbers = [f"{number:g}" for number in fields.values()]
    (name, found) = read([":".join([kind, *numbers])], num_classes=3).popitem()
    assert name == f"{kind}({', '.join(numbers)})"
    np.testing.assert_array_equal(values(found), values(expected))


def test_the_standard_set_is_different_schedules():
    found = standard_schedules()
    assert len(found) == 40
    times = jnp.linspace(0.01, 0.99, 99)
    each = {np.asarray(fn(s=times, t=times, c=jnp.zeros(99, jnp.int32))).tobytes()
            for fn in found.values()}  # fmt: skip
    assert len(each) == 40


@pytest.mark.parametrize("num_classes", [0, 3])
def test_a_table_is_interpolated_as_the_library_does(num_classes, tmp_path):
    times = (1.0, 0.6, 0.25, 0.0)
    rows = [[0.5, -1.0, 2.0], [0.0, 1.0, 3.0], [0.1, 0.2, 0.3]]
    table = rows if num_classes else rows[0]
    found = from_json(tmp_path, [{"name": "a", "kind": "table", "times": times, "values": table}])
    model = omega.StepTable(times=times, rows=omega.ByLabel(3) if num_classes else omega.One())
    expected = omega.bind(model, {"values": jnp.asarray(rows[: max(num_classes, 1)])})
    np.testing.assert_array_equal(values(found["a"]), values(expected))


@pytest.mark.parametrize("num_classes", [0, 3])
def test_a_tabulated_function_is_itself_on_its_grid(num_classes, tmp_path):
    """Below 0 and beyond any default range too."""

    def omega_fn(*, s, t, c):
        by_class = 0.0 * t if num_classes == 0 else c.astype(jnp.float32)
        return 30.0 * jnp.cos(7.0 * t + by_class) - 3.0 * s

    times = schedules.uniform_times(12)
    write(tmp_path / "mine.json", [table_entry(
        omega_fn, name="mine", times=times, num_classes=num_classes)])  # fmt: skip
    found = read([str(tmp_path / "mine.json")], num_classes=3)["mine"]
    c = jnp.arange(3, dtype=jnp.int32)
    np.testing.assert_allclose(
        guidance.on_grid(found, times, c), guidance.on_grid(omega_fn, times, c), atol=1e-4
    )


CONSTANT = {"name": "a", "kind": "constant", "w": 1.0}
TABLE = {"name": "a", "kind": "table", "times": [1.0, 0.5, 0.0], "values": [1.0, 2.0]}
INTERVAL = {"name": "a", "kind": "limited_interval", "w": 1.0, "lo": 0.1, "hi": 0.2}
PER_CLASS = {"name": "a", "kind": "limited_interval_per_class"} | {
    name: [0.1 * (i + 1)] * 2 for i, name in enumerate(("w", "lo", "hi"))
}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (3, "entry 1: expected an object, got 3"),
        ({"kind": "constant", "w": 1}, "entry 1: name: expected up to 80 printable"),
        (CONSTANT | {"name": "unguided"}, "entry 1: name: expected up to 80 printable"),
        (CONSTANT | {"name": "a|b"}, "entry 1: name: expected up to 80 printable"),
        (CONSTANT | {"kind": "consant"}, "entry 1 (a): kind: expected one of constant, "),
        (CONSTANT | {"kind": ["constant"]}, "entry 1 (a): kind: expected one of constant, "),
        (CONSTANT | {"w": True}, "entry 1 (a): w: expected a number from -1000 to 1000, got True"),
        (CONSTANT | {"w": float("nan")}, "entry 1 (a): w: expected a number from -1000 to 1000"),
        (CONSTANT | {"w": 10**400}, "entry 1 (a): w: expected a number from -1000 to 1000"),
        ({"name": "a", "kind": "constant"}, "entry 1 (a): w: expected a value, got nothing"),
        (INTERVAL | {"lo": 0.2}, "entry 1 (a): expected lo < hi, got lo 0.2 and hi 0.2"),
        (INTERVAL | {"hi": 1.2}, "entry 1 (a): hi: expected a number from 0 to 1, got 1.2"),
        (PER_CLASS, "entry 1 (a): expected at least the 3 classes of the data, got 2"),
        (TABLE | {"times": [0.0, 1.0]}, "entry 1 (a): times: expected at least two decreasing"),
        (TABLE | {"times": [0.5, 0.5 - 1e-12]}, "entry 1 (a): times: expected at least two decr"),
        (TABLE | {"values": [1.0]}, "entry 1 (a): values: expected 2 numbers, one a step"),
        (TABLE | {"values": [[1.0, 2.0], [1.0]]}, "entry 1 (a): values: expected 2 numbers, one a"),
        (TABLE | {"values": [[1.0, 2.0]] * 2}, "entry 1 (a): expected at least the 3 classes"),
        (TABLE | {"values": [[1.0, 2.0], [3, None]]},
         "entry 1 (a): values: class 1: number 2: expected a number from -1000 to 1000, got None"),
        ({"name": "a", "kind": "learned", "workdir": "no/run", "method": "l2"},
         "entry 1 (a): no/run: expected the folder of a run"),
    ],
)  # fmt: skip
def test_mistakes_are_named(entry, message, tmp_path):
    (line,) = errors_of(tmp_path, [entry])
    assert line.startswith(message)


def test_every_mistake_is_in_one_message(tmp_path):
    entries = [CONSTANT, CONSTANT, INTERVAL | {"name": "b", "lo": "x", "hi": None, "extra": 1}]
    assert errors_of(tmp_path, entries) == [
        "entry 2 (a): name: expected one no other schedule has, got 'a'",
        "entry 3 (b): lo: expected a number from 0 to 1, got 'x'",
        "entry 3 (b): hi: expected a number from 0 to 1, got None",
        "entry 3 (b): expected the fields w, lo, hi, got also 'extra'",
    ]


def test_schedules_by_class_need_labels(tmp_path):
    (line,) = errors_of(tmp_path, [PER_CLASS], num_classes=None)
    assert line == "entry 1 (a): expected one schedule for all conditions, got 2 classes"


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", "[1", "[" * 100_000, '[{"name": "a", "name": "b"}]', "null", "9" * 5000],
)
def test_files_that_are_no_list_of_schedules(text, tmp_path):
    (line,) = errors_of(tmp_path, text)
    assert line.startswith("expected a JSON list of schedules, got ")


@pytest.mark.parametrize("word", ["constant:", "constant:1:2", "limited_interval:1:0.5", "x:1"])
def test_words_that_are_none(word):
    with pytest.raises(ScheduleError) as found:
        read([word], num_classes=3)
    (line,) = found.value.errors
    assert line.startswith(f"{word}: ")


FIELDS = {name for kind in schedule_kinds.KINDS.values() for name in kind.fields}
SCALARS = (
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5)
    | st.sampled_from([0, 0.25, 0.5, 1, 1.0, -1, 2.5, 1000, 1e-7])
)  # fmt: skip
LISTS = st.lists(SCALARS | st.lists(SCALARS, max_size=4), max_size=4)
GOOD = st.sampled_from(
    [{"name": "a", "kind": kind, **fields} for kind, (fields, _) in KINDS.items()]
    + [TABLE, TABLE | {"values": [[1.0, 2.0]] * 3}, PER_CLASS]
)
CHANGES = st.dictionaries(
    st.sampled_from(sorted(FIELDS - {"workdir"})) | st.text(max_size=3), SCALARS | LISTS, max_size=2
)
ENTRIES = st.builds(
    lambda entry, changes, kind, gone: {
        k: v for k, v in (entry | changes | kind).items() if k not in gone
    },
    GOOD,
    CHANGES,
    st.sampled_from([{}, *({"kind": kind} for kind in (*KINDS, "table", "learned", "none"))]),
    st.sets(st.sampled_from(["name", "kind", "w", "values", "times"]), max_size=1),
)


@settings(max_examples=400, deadline=None)
@given(entries=st.lists(ENTRIES | SCALARS, min_size=1, max_size=3))
def test_whatever_a_file_holds_is_a_schedule_or_a_named_mistake(entries, tmp_path_factory):
    """What is accepted has finite values, of no class but the one asked for."""
    file = tmp_path_factory.getbasetemp() / "fuzz.json"
    file.write_text(json.dumps(entries))
    found, lines = {}, []
    try:
        found = read([str(file)], num_classes=3)
    except ScheduleError as error:
        lines = error.errors
    assert bool(found) is not bool(lines)
    assert all(line.startswith(f"{file}: ") and line.isprintable() for line in lines)
    assert not found or list(found) == [entry["name"] for entry in entries]
    for omega_fn in found.values():
        assert np.isfinite(values(omega_fn)).all()
        one = omega_fn(s=S, t=T, c=jnp.full(5, 2, jnp.int32))
        np.testing.assert_array_equal(np.asarray(one)[2], values(omega_fn)[2])


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_whatever_bytes_are_read_there_is_no_crash(data, tmp_path_factory):
    file = tmp_path_factory.getbasetemp() / "bytes.json"
    file.write_bytes(data)
    with pytest.raises(ScheduleError):
        read([str(file)], num_classes=3)
