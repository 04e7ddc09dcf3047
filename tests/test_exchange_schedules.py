"""Schedules as JSON and words: what is read is what the library makes, or a named mistake."""

import dataclasses
import json
import os
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lgd import guidance, omega, schedules
from lgd.encoders import Vectors
from lgd.exchange import files
from lgd.exchange.kinds import Kind, kinds, number
from lgd.exchange.schedules import (
    MAX_BYTES,
    ScheduleError,
    entry,
    read,
    standard_schedules,
    table_entry,
    write,
)

T = jnp.asarray([0.05, 0.3, 0.5, 0.77, 0.999], jnp.float32)
S = 0.5 * T
C = jnp.asarray([0, 1, 2, 1, 0], jnp.int32)
FLOW = schedules.rectified_flow()

KINDS = {
    "constant": ({"w": 0.5}, guidance.constant(0.5)),
    "limited_interval": ({"w": 1, "lo": 0.2, "hi": 0.8}, guidance.limited_interval(1.0, 0.2, 0.8)),
    "limited_interval_per_class": (
        {"w": [1, 2, 3], "lo": [0, 0.1, 0.2], "hi": [0.5, 0.6, 1]},
        guidance.limited_interval_per_class([1.0, 2.0, 3.0], [0.0, 0.1, 0.2], [0.5, 0.6, 1.0]),
    ),
    "logsnr_interval": (
        {"w": 1, "lo": -3, "hi": 2},
        guidance.logsnr_interval(1.0, -3.0, 2.0, schedule=FLOW),
    ),
    "clamp_linear": ({"cfg_scale": 1.5}, guidance.clamp_linear(1.5)),
    "linear": ({"cfg_scale": 1.5}, guidance.linear(1.5)),
    "cosine": ({"cfg_scale": 1.5}, guidance.cosine(1.5)),
    "clamp_cosine": ({"cfg_scale": 1.5, "cfg_floor": 0.9}, guidance.clamp_cosine(1.5, 0.9)),
    "power_cosine": ({"cfg_scale": 1.5, "power": 2}, guidance.power_cosine(1.5, 2.0)),
    "constant_directions": ({"w": 1, "v": 0.5}, guidance.constant_directions(1.0, 0.5)),
}


def of_its_grid(family):
    """Fields of a family from the ends of its grids, and the schedule that they make."""
    tuned = {name: field.grid for name, field in family.fields.items() if field.grid}
    fields = {name: grid[0 if name != "hi" else -1] for name, grid in tuned.items()}
    context = {"schedule": FLOW} if family.takes_schedule else {}
    return fields, family.make(**fields, **context)


KINDS |= {name: of_its_grid(row) for name, row in guidance.FAMILIES.items() if name not in KINDS}


def values(omega_fn):
    return np.asarray(omega_fn(s=S, t=T, c=C))


def from_json(tmp_path, entries, **context):
    file = tmp_path / "mine.json"
    file.write_text(entries if isinstance(entries, str) else json.dumps(entries))
    return read([str(file)], **({"num_strata": 3, "schedule": FLOW} | context))


def errors_of(tmp_path, entries, **context):
    with pytest.raises(ScheduleError) as raised:
        from_json(tmp_path, entries, **context)
    return [line.removeprefix(f"{tmp_path / 'mine.json'}: ") for line in raised.value.errors]


@pytest.mark.parametrize("kind", KINDS)
def test_an_entry_is_the_schedule_of_the_library(kind, tmp_path):
    fields, expected = KINDS[kind]
    named = from_json(tmp_path, [{"name": "mine", "kind": kind, **fields}])
    assert named == {"mine": expected}
    np.testing.assert_array_equal(values(named["mine"]), values(expected))


@pytest.mark.parametrize("kind", KINDS)
def test_a_schedule_comes_back_from_its_entry(kind, tmp_path):
    _, schedule = KINDS[kind]
    write(tmp_path / "new" / "mine.json", [entry(schedule, name="mine")])
    source = str(tmp_path / "new" / "mine.json")
    assert read([source], num_strata=3, schedule=FLOW) == {"mine": schedule}


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"limited_interval_per_class"}))
def test_a_word_is_the_schedule_of_the_library(kind):
    fields, expected = KINDS[kind]
    numbers = [f"{number:g}" for number in fields.values()]
    named = read([":".join([kind, *numbers])] * 2, num_strata=3, schedule=FLOW)
    assert named == {str(expected): expected}


def test_words_come_before_files(tmp_path):
    file = tmp_path / "mine.json"
    write(file, [entry(guidance.constant(1.0), name="a")])
    named = read([str(file), "constant:2", "linear:1", str(file)], num_strata=None)
    assert list(named) == ["constant(2)", "linear(1)", "a"]


def test_the_standard_set_is_different_schedules():
    named = standard_schedules()
    times = jnp.linspace(0.01, 0.99, 99)
    c = jnp.zeros(99, jnp.int32)
    assert len({np.asarray(fn(s=times, t=times, c=c)).tobytes() for fn in named.values()}) == 40
    assert list(named)[::13] == [
        "constant(0.05)",
        "limited_interval(0.4, 0.2, 0.5)",
        "limited_interval(2.4, 0, 0.5)",
        "clamp_linear(2)",
    ]
    assert read(["default"], num_strata=None) == named


@pytest.mark.parametrize("num_strata", [0, 3])
def test_a_table_is_interpolated_as_the_library_does(num_strata, tmp_path):
    times = (1.0, 0.6, 0.25, 0.0)
    rows = [[0.5, -1.0, 2.0], [0.0, 1.0, 3.0], [0.1, 0.2, 0.3]]
    table = rows if num_strata else rows[0]
    named = from_json(tmp_path, [{"name": "a", "kind": "table", "times": times, "values": table}])
    model = omega.StepTable(times=times, rows=omega.ByLabel(3) if num_strata else omega.One())
    expected = omega.bind(model, {"values": jnp.asarray(rows[: max(num_strata, 1)])})
    np.testing.assert_array_equal(values(named["a"]), values(expected))


@pytest.mark.parametrize("num_strata", [0, 3])
def test_a_tabulated_function_is_itself_on_its_grid(num_strata, tmp_path):
    """Below 0 and beyond any default range too."""

    def omega_fn(*, s, t, c):
        by_label = 0.0 * t if num_strata == 0 else c.astype(jnp.float32)
        return 30.0 * jnp.cos(7.0 * t + by_label) - 3.0 * s

    times = schedules.uniform_times(12)
    write(tmp_path / "mine.json", [table_entry(
        omega_fn, name="mine", times=times, num_strata=num_strata)])  # fmt: skip
    mine = read([str(tmp_path / "mine.json")], num_strata=3)["mine"]
    c = jnp.arange(3, dtype=jnp.int32)
    np.testing.assert_allclose(
        guidance.on_grid(mine, times, c), guidance.on_grid(omega_fn, times, c), atol=1e-4
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: entry(guidance.constant(2000.0), name="a"), "w: expected a number from -1000 to"),
        (lambda: entry(guidance.constant(1.0), name="a\n"), "name: expected up to 80 printable"),
        (
            lambda: entry(dataclasses.replace(guidance.constant(1.0), family="mine"), name="a"),
            "family: expected one of constant, .*, got 'mine'",
        ),
        (
            lambda: entry(guidance.logsnr_interval(1.0, 0.0, np.inf, schedule=FLOW), name="a"),
            "hi: expected a number from -1000 to 1000, got inf",
        ),
        (
            lambda: table_entry(
                guidance.constant(1e4), name="a", times=jnp.asarray([1.0, 0.0]), num_strata=0
            ),
            "values: number 1: expected a number",
        ),
        (
            lambda: table_entry(
                guidance.constant_directions(1.0, 2.0),
                name="a",
                times=jnp.asarray([1.0, 0.0]),
                num_strata=0,
            ),
            "expected one direction, got 2",
        ),
        (lambda: write("unwritten.json", [{"w": np.nan}]), "not JSON compliant"),
        (lambda: write("unwritten.json", [{"w": "x" * MAX_BYTES}]), "expected at most 16777216 by"),
    ],
)
def test_what_no_file_can_hold_is_not_written(make, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        make()
    assert not list(tmp_path.iterdir())


# Guidance in files, kinds of callers, noise schedules


def test_a_saved_guidance_is_a_kind(tmp_path):
    model = omega.StepTable(times=(1.0, 0.5, 0.0), rows=omega.ByLabel(3))
    learned = omega.Guidance(model, {"values": jnp.asarray([[1.0, 2.0], [3, 4], [5, 6]])}, "zero")
    files.save(learned, tmp_path / "a.safetensors")
    entries = [{"name": "ours", "kind": "guidance", "file": str(tmp_path / "a.safetensors")}]
    ours = from_json(tmp_path, entries)["ours"]
    np.testing.assert_array_equal(values(ours), values(learned))
    (line,) = errors_of(tmp_path, entries, num_strata=4)
    assert line.startswith("entry 1 (ours): expected labels")


@pytest.mark.slow
def test_a_saved_guidance_of_vectors_is_one_of_no_labels(tmp_path):
    network = omega.Network(schedule=FLOW, encoder=Vectors(2), width=4, depth=1)
    c = jnp.ones((5, 2))
    learned = omega.Guidance(network, network.init(jax.random.key(0), c), "zero")
    files.save(learned, tmp_path / "a")
    entries = [{"name": "ours", "kind": "guidance", "file": str(tmp_path / "a")}]
    ours = from_json(tmp_path, entries, num_strata=None)["ours"]
    np.testing.assert_array_equal(ours(s=S, t=T, c=c), learned(s=S, t=T, c=c))
    (line,) = errors_of(tmp_path, entries)
    assert line.startswith("entry 1 (ours): expected vectors")


@pytest.mark.parametrize(
    ("content", "message"), [(None, "expected a guidance"), (b"\x80\x04", "expected a guidance")]
)
def test_what_is_no_saved_guidance_is_named(content, message, tmp_path):
    file = tmp_path / "a.safetensors"
    if content is not None:
        file.write_bytes(content)
    (line,) = errors_of(tmp_path, [{"name": "a", "kind": "guidance", "file": str(file)}])
    assert line.startswith(f"entry 1 (a): {file}: {message}")


def test_callers_have_kinds_of_their_own(tmp_path):
    def make(w, num_strata):
        if num_strata != 3:
            raise ValueError(f"expected 3 strata,\ngot {num_strata}")
        return guidance.constant(2.0 * w)

    twice = Kind(make=make, fields={"w": number(0.0, 1.0)}, takes=frozenset({"num_strata"}))
    entries = [{"name": "a", "kind": "twice", "w": 0.5}]
    more = {"twice": twice}
    assert from_json(tmp_path, entries, more_kinds=more) == {"a": guidance.constant(1.0)}
    (line,) = errors_of(tmp_path, entries, more_kinds=more, num_strata=None)
    assert line == "entry 1 (a): expected 3 strata, got None"
    (line,) = errors_of(tmp_path, entries)
    assert line.startswith("entry 1 (a): kind: expected one of constant, ")


def test_families_of_the_noise_schedule_need_one(tmp_path):
    message = "kind: expected the noise schedule that logsnr_interval needs, got none"
    entries = [{"name": "a", "kind": "logsnr_interval", "w": 1, "lo": 0, "hi": 1}]
    assert errors_of(tmp_path, entries, schedule=None) == [f"entry 1 (a): {message}"]
    with pytest.raises(ScheduleError, match=f"logsnr_interval:1:0:1: {message}"):
        read(["logsnr_interval:1:0:1"], num_strata=None)


# Mistakes

CONSTANT = {"name": "a", "kind": "constant", "w": 1.0}
TABLE = {"name": "a", "kind": "table", "times": [1.0, 0.5, 0.0], "values": [1.0, 2.0]}
INTERVAL = {"name": "a", "kind": "limited_interval", "w": 1.0, "lo": 0.1, "hi": 0.2}
PER_CLASS = {"name": "a", "kind": "limited_interval_per_class"} | {
    name: [0.1 * (i + 1)] * 2 for i, name in enumerate(("w", "lo", "hi"))
}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (3, "entry 1: expected an object, got 3"),
        ({"kind": "constant", "w": 1}, "entry 1: name: expected up to 80 printable"),
        (CONSTANT | {"name": "unguided"}, "entry 1: name: expected up to 80 printable"),
        (CONSTANT | {"name": "a|b"}, "entry 1: name: expected up to 80 printable"),
        (CONSTANT | {"name": "\ud800"}, "expected a JSON list of schedules, got a text with half"),
        (CONSTANT | {"name": "\u200b"}, "entry 1: name: expected up to 80 printable"),
        (CONSTANT | {"kind": "consant"}, "entry 1 (a): kind: expected one of constant, "),
        (CONSTANT | {"kind": ["constant"]}, "entry 1 (a): kind: expected one of constant, "),
        (CONSTANT | {"w": True}, "entry 1 (a): w: expected a number from -1000 to 1000, got True"),
        (CONSTANT | {"w": float("nan")}, "expected a JSON list of schedules, got NaN, which JSON"),
        (CONSTANT | {"w": 10**400}, "expected a JSON list of schedules, got an integer of 401"),
        (CONSTANT | {"w": 10**99}, "entry 1 (a): w: expected a number from -1000 to 1000"),
        (CONSTANT | dict.fromkeys("xyz"), "entry 1 (a): expected the fields w, got also 'x' and "),
        ({"name": "a", "kind": "constant"}, "entry 1 (a): w: expected a value, got nothing"),
        (INTERVAL | {"lo": 0.2}, "entry 1 (a): expected lo < hi, got lo 0.2 and hi 0.2"),
        (INTERVAL | {"hi": 1.2}, "entry 1 (a): hi: expected a number from 0 to 1, got 1.2"),
        (PER_CLASS, "entry 1 (a): expected at least the 3 strata of the data, got 2"),
        (PER_CLASS | {"w": 1.0}, "entry 1 (a): w: expected a list of numbers, got 1.0"),
        (PER_CLASS | {"hi": [1, 2]}, "entry 1 (a): hi: number 2: expected a number from 0 to 1"),
        (TABLE | {"times": [0.0, 1.0]}, "entry 1 (a): times: expected at least two decreasing"),
        (TABLE | {"times": [0.5, 0.5 - 1e-12]}, "entry 1 (a): times: expected at least two decr"),
        (TABLE | {"values": [1.0]}, "entry 1 (a): values: expected 2 numbers, one a step"),
        (TABLE | {"values": [[1.0, 2.0], [1.0]]}, "entry 1 (a): values: expected 2 numbers, one a"),
        (TABLE | {"values": [[1.0, 2.0]] * 2}, "entry 1 (a): expected at least the 3 strata"),
        (TABLE | {"values": [[1.0, 2.0], [3, None]]},
         "entry 1 (a): values: stratum 1: number 2: expected a number from -1000 to 1000, got No"),
    ],
)  # fmt: skip
def test_mistakes_are_named(values, message, tmp_path):
    (line,) = errors_of(tmp_path, [values])
    assert line.startswith(message)


def test_every_mistake_is_in_one_message(tmp_path):
    entries = [CONSTANT, CONSTANT, INTERVAL | {"name": "b", "lo": "x", "hi": None, "extra": 1}]
    assert errors_of(tmp_path, entries) == [
        "entry 2 (a): name: expected one no other schedule has, got 'a'",
        "entry 3 (b): lo: expected a number from 0 to 1, got 'x'",
        "entry 3 (b): hi: expected a number from 0 to 1, got None",
        "entry 3 (b): expected the fields w, lo, hi, got also 'extra'",
    ]


@pytest.mark.parametrize("values", [PER_CLASS, TABLE | {"values": [[1.0, 2.0]] * 2}])
def test_schedules_by_label_need_labels(values, tmp_path):
    (line,) = errors_of(tmp_path, [values], num_strata=None)
    assert line == "entry 1 (a): expected one schedule for all conditions, got 2 strata"


@pytest.mark.parametrize(
    "word", ["constant:", "constant:1:2", "limited_interval:1:0.5", "x:1", "constant:nan", "a\0b"]
)
def test_words_that_are_none(word):
    with pytest.raises(ScheduleError) as raised:
        read([word], num_strata=3)
    (line,) = raised.value.errors
    assert line.isprintable()
    assert line.startswith(word if word.isprintable() else repr(word))


# Files that are no list of schedules


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"{}", b"[]", b"[1", b"null", b"9" * 5000, b"[" * 100_000, b'{"a":' * 100_000),
        *(b'[{"name": "a", "name": "b"}]', b'[{"\n": 1, "\n": 1}]', b"\xff[1]", b"PK\x03\x04"),
        json.dumps([CONSTANT]).encode("utf-16"),
        json.dumps([CONSTANT]).encode("utf-8-sig"),
    ],
    ids=lambda raw: repr(raw[:12]),
)
def test_files_that_are_no_list_of_schedules(raw, tmp_path):
    file = tmp_path / "mine.json"
    file.write_bytes(raw)
    with pytest.raises(ScheduleError) as raised:
        read([str(file)], num_strata=3)
    (line,) = raised.value.errors
    assert line.startswith(f"{file}: expected a JSON list of schedules, got ")
    assert line.isprintable()


def test_a_file_of_many_keys_is_refused_in_time(tmp_path):
    keys = [f'"k{i}": 1' for i in range(80_000)]
    start = time.perf_counter()
    (line,) = errors_of(tmp_path, f"[{{{', '.join([*keys, keys[-1]])}}}]")
    assert line == "expected a JSON list of schedules, got 'k79999' twice in one object"
    (line,) = errors_of(tmp_path, f'[{{"name": "a", "kind": "linear", {", ".join(keys)}}}]')[1:]
    assert line.endswith("got also 'k0' and 79999 more")
    assert time.perf_counter() - start < 10.0


def test_only_regular_files_of_bounded_size_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    large = tmp_path / "large.json"
    with large.open("wb") as stream:
        stream.truncate(MAX_BYTES + 1)
    long = tmp_path / "long.json"
    long.write_text(f"[{', '.join('0' * 10_001)}]")
    sources = [tmp_path, tmp_path / "pipe", "/dev/zero", large, long, tmp_path / ("x" * 300)]
    with pytest.raises(ScheduleError) as raised:
        read([str(source) for source in sources], num_strata=3)
    endings = [f"got no regular file: {kind}" for kind in ("a folder", "a pipe", "a device")]
    endings += [f"of at most {MAX_BYTES} bytes, got {MAX_BYTES + 1}"]
    endings += ["expected at most 10000 schedules, got 10001", "got File name too long"]
    for line, source, ending in zip(raised.value.errors, sources, endings, strict=True):
        assert line.startswith(f"{source}"[:100])
        assert line.endswith(ending)


# Anything at all

SCALARS = (
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5)
    | st.sampled_from([0, 0.25, 0.5, 1, 1.0, -1, 2.5, 1000, 1e-7])
)  # fmt: skip
LISTS = st.lists(SCALARS | st.lists(SCALARS, max_size=4), max_size=4)
GOOD = st.sampled_from(
    [{"name": "a", "kind": kind, **fields} for kind, (fields, _) in KINDS.items()]
    + [TABLE, TABLE | {"values": [[1.0, 2.0]] * 3}, PER_CLASS]
)
FIELDS = {field for kind in kinds().values() for field in kind.fields}
CHANGES = st.dictionaries(
    st.sampled_from(sorted(FIELDS)) | st.text(max_size=3), SCALARS | LISTS, max_size=2
)
ENTRIES = st.builds(
    lambda entry, changes, kind, gone: {
        k: v for k, v in (entry | changes | kind).items() if k not in gone
    },
    GOOD,
    CHANGES,
    st.sampled_from([{}, *({"kind": kind} for kind in (*kinds(), "none"))]),
    st.sets(st.sampled_from(["name", "kind", "w", "values", "times"]), max_size=1),
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(entries=st.lists(ENTRIES | SCALARS, min_size=1, max_size=3))
def test_whatever_a_file_holds_is_a_schedule_or_a_named_mistake(entries, tmp_path_factory):
    """What is accepted has finite values, of no label but the one asked for."""
    file = tmp_path_factory.getbasetemp() / "fuzz.json"
    file.write_text(json.dumps(entries))
    named, lines = {}, []
    try:
        named = read([str(file)], num_strata=3, schedule=FLOW)
    except ScheduleError as error:
        lines = error.errors
    assert bool(named) is not bool(lines)
    assert all(line.startswith(f"{file}: ") and line.isprintable() for line in lines)
    assert not named or list(named) == [entry["name"] for entry in entries]
    for omega_fn in named.values():
        assert np.isfinite(values(omega_fn)).all()
        one = omega_fn(s=S, t=T, c=jnp.full(5, 2, jnp.int32))
        np.testing.assert_array_equal(np.asarray(one)[2], values(omega_fn)[2])


@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_whatever_bytes_are_read_there_is_no_crash(data, tmp_path_factory):
    file = tmp_path_factory.getbasetemp() / "bytes.json"
    file.write_bytes(data)
    with pytest.raises(ScheduleError):
        read([str(file)], num_strata=3)
