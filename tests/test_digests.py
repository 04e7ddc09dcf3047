"""Names of values: equal for equal values, different for others, the same in every process."""

import dataclasses
import functools
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from lgd import schedules
from lgd.machinery import digests
from lgd.machinery.digests import describe

ONE = np.asarray([1, 0], np.int32)


@dataclasses.dataclass(frozen=True)
class Schedule:
    value: Any


class Pair(NamedTuple):
    first: Any
    second: Any


class Net(nn.Module):
    width: int
    activation: Any = nn.silu
    kernel_init: Any = nn.initializers.lecun_normal()

    def method(self):
        return self.width


def double(x):
    return 2 * x


def nested():
    def inner(x):
        return x

    return inner


def test_bytes_and_files_have_the_sums_of_hashlib(tmp_path):
    data = bytes(range(256)) * 5
    (tmp_path / "file").write_bytes(data)
    expected = hashlib.sha256(data).hexdigest()
    assert digests.of_file(tmp_path / "file") == digests.of_bytes(data) == expected
    assert digests.of_parts([data[:7], b"", data[7:]]) == expected


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12.0).reshape(3, 4).T,
        np.arange(12)[::2],
        np.zeros((0, 3)),
        np.float32(2.0) * np.ones(()),
        np.ones(3, ml_dtypes.bfloat16),
        np.asarray([True, False]),
    ],
    ids=["transposed", "strided", "empty", "scalar", "bfloat16", "bool"],
)
def test_an_array_has_the_sum_of_its_bytes_in_row_major_order(array):
    assert digests.of_bytes(np.asarray(array)) == digests.of_bytes(np.asarray(array).tobytes())


def test_trees_differ_by_paths_dtypes_shapes_and_bytes():
    trees = [
        {"a": ONE},
        {"b": ONE},
        [ONE],
        {"a": ONE.reshape(2, 1)},
        {"a": ONE.view(np.float32)},
        {"a": ONE.view(np.int64)},
        {"a": ONE[::-1]},
        {"a": np.zeros(2, np.float32)},
        {"a": -np.zeros(2, np.float32)},
    ]
    assert len({digests.of_tree(tree) for tree in trees}) == len(trees)
    assert digests.of_tree({"a": jnp.asarray(ONE)}) == digests.of_tree({"a": ONE})


def test_examples_differ_by_order_dtype_and_shape():
    row = np.arange(4, dtype=np.float32)
    cases = [[row, ONE], [ONE, row], [row.reshape(2, 2), ONE], [row.astype(np.float64), ONE], [row]]
    cases += [["files", ONE], ["other files", ONE]]
    assert len({digests.of_examples(case) for case in cases}) == len(cases)


def test_json_has_one_sum_in_any_order_and_no_nan():
    assert digests.of_json({"a": 1, "b": 2}) == digests.of_json({"b": 2, "a": 1})
    with pytest.raises(ValueError, match="JSON"):
        digests.of_json({"a": float("nan")})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (schedules.rectified_flow(), "RectifiedFlow()"),
        (schedules.edm(rho=3.0), "EDM(sigma_min=0.002, sigma_max=80.0, rho=3.0)"),
        (Schedule(np.float32(0.5)), "Schedule(value=0.5)"),
        (Schedule((1, "a", None, [True])), "Schedule(value=(1, 'a', None, (True)))"),
        (Schedule({"b": 1, "a": {"c"}}), "Schedule(value={a: {'c'}, b: 1})"),
        (Pair(1, 2), "Pair(first=1, second=2)"),
        (double, f"{__name__}.double"),
        (nested(), f"{__name__}.nested.<locals>.inner"),
        (jax.jit(double), f"{__name__}.double"),
        (Schedule(3).__eq__, "Schedule(value=3).__eq__"),
        (
            functools.partial(double, x=2),
            f"partial {__name__}.double(args=(), keywords={{x: 2}})",
        ),
        (np.dtype("int8"), "dtype('int8')"),
        (Net(3, double), f"Net(width=3, activation={__name__}.double)"),
        (Schedule, f"{__name__}.Schedule"),
    ],
)
def test_values_in_words(value, words):
    assert describe(value) == words


def test_arrays_are_described_by_dtype_shape_and_bytes():
    entry = digests.of_bytes(ONE)
    assert describe(Schedule(ONE)) == f"Schedule(value=int32[2] sha256 {entry})"
    assert describe(jnp.asarray(ONE)) == describe(ONE)
    params = {"layer": {"w": ONE, "b": ONE}}
    assert describe(params) == f"2 arrays sha256 {digests.of_tree(params)}"
    large = np.zeros(5000)
    others = [large, large.astype(np.float32), large.reshape(50, 100), large + np.eye(1, 5000)[0]]
    assert len({describe(Schedule(array)) for array in others}) == 4


def test_what_has_a_description_is_described_by_it():
    named = lambda x: x  # noqa: E731
    named.description = "identity, version 2"
    assert describe(Schedule(named)) == "Schedule(value=identity, version 2)"


def captured():
    weight = 3.0
    return lambda x: weight * x


def captured_by_name():
    weight = 3.0

    def function(x):
        return weight * x

    return function


@pytest.mark.parametrize(
    "value",
    [
        lambda x: x,
        captured(),
        captured_by_name(),
        jax.jit(captured_by_name()),
        functools.partial(captured_by_name(), 1),
        nn.initializers.lecun_normal(),
        object(),
        {"a": object()},
    ],
    ids=["lambda", "closure", "function", "jitted", "partial", "flax", "object", "within"],
)
def test_a_value_without_a_name_is_refused(value):
    with pytest.raises(ValueError, match="expected a value with a name, a frozen dataclass"):
        describe(Schedule(value))


SAID = """
import numpy as np
from lgd import schedules
from lgd.machinery.digests import describe
print(describe((schedules.edm(), {"x", "y", "z"}, {"w": np.arange(3.0)}, np.tanh)))
"""


@pytest.mark.slow
def test_two_processes_say_the_same():
    said = {
        subprocess.run(
            [sys.executable, "-c", SAID],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[1],
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1


@pytest.mark.parametrize("value", [lambda x: x, object(), (1, [lambda x: x]), {"a": object()}])
def test_what_has_no_name_is_refused_or_named_by_its_kind(value):
    with pytest.raises(ValueError, match="expected a value with a name"):
        digests.describe(value)
    assert " at 0x" not in digests.describe(value, nameless=digests.kind_of)


def test_a_field_without_result_names_nothing():
    @dataclasses.dataclass(frozen=True)
    class Settings:
        rate: float
        bar: bool = dataclasses.field(default=True, metadata=digests.NO_RESULT)

    assert digests.describe(Settings(0.5, bar=False)) == "Settings(rate=0.5)"


def test_the_beginning_of_a_file_has_a_digest_of_its_own(tmp_path):
    data = bytes(range(256)) * 10_000  # longer than what is read at once
    (tmp_path / "file").write_bytes(data)
    for first in (0, 1, 2**20, 2**20 + 1, len(data)):
        assert digests.of_file(tmp_path / "file", first=first) == digests.of_bytes(data[:first])
