"""JSON of any kind: read back as it was written, or refused in little time and memory."""

import json
import re
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lgd.machinery import json_file
from lgd.machinery.files import InputFileError
from lgd.machinery.json_file import MAX_DEPTH, MAX_DIGITS, parsed
from lgd.machinery.words import one_line, shown

ROOT = Path(__file__).resolve().parents[1]
MB16 = 16 * 10**6
TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]) | st.sampled_from('"\\[]{}'))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
)  # fmt: skip


@settings(max_examples=100, deadline=None, database=None)
@given(VALUES, st.booleans())
def test_what_python_writes_is_read_as_it_was(value, is_ascii):
    assert parsed(json.dumps(value, ensure_ascii=is_ascii).encode()) == value


@settings(max_examples=200, deadline=None, database=None)
@given(VALUES, st.integers(MAX_DEPTH - 1, MAX_DEPTH + 1), st.booleans())
def test_depth_is_that_of_brackets_outside_of_texts(value, depth, in_objects):
    opening, closing = ('{"a\\"[": ', "}") if in_objects else ("[", "]")
    raw = f"{opening * depth}0{closing * depth}"
    raw = f'[{json.dumps(value)}, {raw}, "{"[" * 200}"]'
    if depth < MAX_DEPTH:
        assert parsed(raw.encode())[0] == value
    else:
        with pytest.raises(ValueError, match=f"more than {MAX_DEPTH} lists and objects"):
            parsed(raw.encode())


REFUSED = {
    "depth": (b"[" * MB16, "more than 100 lists and objects in each other"),
    "depth of objects": (b'{"":' * (MB16 // 4), "more than 100 lists"),
    "depth after a text": (b'["\\\\",' * 200 + b"]" * 200, "more than 100 lists"),
    "digits": (b"9" * MB16, f"an integer of {MB16} digits"),
    "digits below 0": (b"[-" + b"9" * MAX_DIGITS + b"]", "an integer of 101 digits"),
    "exponent": (b"1e" + b"9" * MB16, "too large for a number"),
    "NaN": (b"[NaN]", "NaN, which JSON does not have"),
    "Infinity": (b"-Infinity", "-Infinity, which JSON does not have"),
    "name": (b'{"a": 1, "b": {"a": 1, "a": 1}}', "'a' twice in one object"),
    "half a character": (b'["\\ud83d"]', "half a character"),
    "other half": (b'{"\\udE00": 0}', "half a character"),
    "bytes": (b'"\xff"', "can't decode byte 0xff"),
    "quotes": (b'"' * MB16, "Extra data"),
    "escapes": (b'"' + b'\\"' * (MB16 // 2), "Unterminated string"),
    "nothing": (b"", "Expecting value"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_is_named_in_little_time(case, tmp_path):
    raw, words = REFUSED[case]
    began = time.process_time()
    with pytest.raises(ValueError, match=words):
        parsed(raw)
    (tmp_path / "a.json").write_bytes(raw)
    with pytest.raises(InputFileError, match=r"a\.json: expected some JSON, got ") as refusal:
        json_file.read(tmp_path / "a.json", "some JSON")
    assert len(str(refusal.value)) < 500
    assert time.process_time() - began < 10.0


def test_numbers_that_python_writes_but_json_lacks_are_read_where_they_may_be():
    assert parsed(b"[NaN, 1e999, -Infinity]", strict=False)[1:] == [float("inf"), -float("inf")]
    assert parsed(b'"\\udcff"', strict=False) == "\udcff"


def test_whole_characters_of_two_halves_and_long_numbers_are_read():
    assert parsed(b'["\\ud83d\\ude00", "\\\\ud83d"]') == ["\U0001f600", "\\ud83d"]
    assert parsed(b"9" * MAX_DIGITS) == 10**MAX_DIGITS - 1
    assert parsed(b"0." + b"1" * 10**6) == pytest.approx(1 / 9)


def test_files_of_other_sizes_and_kinds_are_refused(tmp_path):
    (tmp_path / "a.json").write_bytes(b"[1, 2]")
    assert json_file.read(tmp_path / "a.json", "a list", max_bytes=6) == [1, 2]
    with pytest.raises(InputFileError, match="expected a list of at most 5 bytes, got 6"):
        json_file.read(tmp_path / "a.json", "a list", max_bytes=5)
    with pytest.raises(InputFileError, match="no regular file: a folder"):
        json_file.read(tmp_path, "a list")


def test_no_other_code_reads_json_of_files():
    """Messages between processes are no files; what tests the launcher reads what it wrote."""
    found = {
        str(file.relative_to(ROOT))
        for room in ("lgd", "experiments")
        for file in (ROOT / room).rglob("*.py")
        if re.search(r"^[^>]*json\.loads?\(", file.read_text(), re.MULTILINE)
    }
    assert {file for file in found if not file.startswith("experiments/faults/")} == {
        *("lgd/machinery/json_file.py", "lgd/machinery/processes.py"),
    }


# Values in messages


@settings(max_examples=200, deadline=None, database=None)
@given(VALUES | st.tuples(VALUES) | st.tuples(VALUES, VALUES), st.integers(10, 60))
@example({"0000000000'\"": None}, 10)
@example(["0000000000000'"], 10)
@example(b"0000000000000'\"", 10)
def test_values_are_shown_as_python_writes_them(value, limit):
    assert shown(value, limit) == one_line(repr(value), limit)


def test_large_and_deep_values_are_shown_in_no_time():
    doubled, deep = [[]], []
    for _ in range(100):
        doubled = [doubled, doubled]
    for _ in range(100_000):
        deep = [deep]
    began = time.process_time()
    assert shown([[]] * 10**6).startswith("[[], []")
    assert shown(doubled).startswith("[[[[")
    assert shown(deep)
    assert len(one_line("a " * 10**7)) == 203
    assert len(shown("a" * 10**7)) == 203
    assert len(shown(dict.fromkeys(range(10**6), "a"))) == 203
    assert time.process_time() - began < 2.0
