"""Changed contents of files, drawn by hypothesis: bytes, numbers and values of JSON."""

import json
import re
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

NUMBERS = (
    b"0", b"-1", b"1", b"255", b"65536", b"2147483648", b"4294967295", b"9223372036854775807",
    b"18446744073709551616", b"9" * 80, b"9" * 5000, b"1e308", b"1e999", b"-0.0", b"0.5", b"NaN",
    b"1e-400",
)  # fmt: skip
VALUES = (
    *NUMBERS, b"null", b"true", b'""', b'"a"', b'"' + b"x" * 300 + b'"', b'"\\ud800"', b'"\\u0000"',
    b"[]", b"{}", b"[0]", b"[[[]]]", b'{"a": {"b": []}}', b"[" * 90 + b"]" * 90,
    b"[" * 5000 + b"]" * 5000, b'{"":' * 3000 + b"0" + b"}" * 3000, b'"../../x"', b'"/dev/zero"',
    b"Infinity", b"[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]",
)  # fmt: skip
LENGTHS = (0, 1, 2**7, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
_MARK = "a value that is exchanged"


@st.composite
def changed_bytes(draw: Any, whole: bytes) -> bytes:
    """Bytes flipped, cut out, put in, doubled, cut off, or fields of integers exchanged."""
    raw = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(raw)))
        end = draw(st.integers(start, min(start + 16, len(raw))))
        match draw(st.sampled_from(["flip", "replace", "copy", "integer", "number"])):
            case "flip" if start < len(raw):
                raw[start] ^= 1 << draw(st.integers(0, 7))
            case "replace":
                raw[start:end] = draw(st.binary(max_size=16))
            case "copy":
                place = draw(st.integers(0, len(raw)))
                raw[place:place] = raw[start : start + draw(st.integers(0, 200))]
            case "integer":
                size, order = draw(st.sampled_from([1, 2, 4, 8])), draw(st.sampled_from(ORDERS))
                value = draw(st.sampled_from(LENGTHS)) % 2 ** (8 * size)
                raw[start : start + size] = value.to_bytes(size, order)
            case "number":
                raw = bytearray(_changed_number(draw, bytes(raw)))
    return bytes(raw[: draw(st.integers(0, len(raw)))]) if draw(st.booleans()) else bytes(raw)


ORDERS = ("little", "big")


def _changed_number(draw: Any, raw: bytes) -> bytes:
    """One of the numbers in a text exchanged."""
    places = [match.span() for match in re.finditer(rb"-?\d+(\.\d+)?", raw)][:2000]
    if not places:
        return raw
    start, end = draw(st.sampled_from(places))
    return raw[:start] + draw(st.sampled_from(NUMBERS)) + raw[end:]


@st.composite
def changed_json(draw: Any, whole: bytes) -> bytes:
    """Some values exchanged, left out, doubled or renamed."""
    value = json.loads(whole)
    texts: list[bytes] = []
    for _ in range(draw(st.integers(1, 2))):
        places = list(_places(value))
        inside, key = draw(st.sampled_from(places))
        if inside is None:
            return draw(st.sampled_from(VALUES))
        match draw(st.sampled_from(["exchange"] * 3 + ["leave out", "more", "rename"])):
            case "exchange":
                inside[key] = f"{_MARK} {len(texts)}"
                texts.append(draw(st.sampled_from(VALUES)))
            case "leave out":
                del inside[key]
            case "more" if isinstance(inside, list):
                inside.extend([inside[key]] * draw(st.integers(1, 5)))
            case "more" | "rename":
                if isinstance(inside, dict):
                    inside[draw(st.sampled_from(["", "a", "__metadata__", "class", "..", "/"]))] = (
                        inside[key]
                    )
    text = json.dumps(value).encode()
    for number, written in enumerate(texts):
        text = text.replace(json.dumps(f"{_MARK} {number}").encode(), written)
    return text


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Where every value is: the list or object around it, and its index or name."""
    yield None, None
    inner = [value]
    while inner:
        inside = inner.pop()
        keys = range(len(inside)) if isinstance(inside, list) else list(inside)
        for key in keys:
            yield inside, key
            if isinstance(inside[key], list | dict):
                inner.append(inside[key])


def changed(whole: bytes, *, is_json: bool) -> st.SearchStrategy[bytes]:
    """Whatever may be in the place of a part."""
    begun = st.integers(0, 16).flatmap(
        lambda size: st.binary(max_size=100).map(lambda more: whole[:size] + more)
    )
    some = changed_bytes(whole) | begun
    return changed_json(whole) | changed_json(whole) | some if is_json else some
