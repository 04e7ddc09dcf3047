"""Conditions of any structure, and the strata that are counted by."""

import jax.numpy as jnp
import numpy as np
import pytest

from lgd import conditions

LABELS = np.asarray([2, 0, 1, 0])
TREE = {
    "text": np.arange(24.0).reshape(4, 3, 2),
    "mask": np.asarray([[True, False, True]] * 4),
    "more": (np.arange(4), None),
}


def test_size_is_the_leading_axis_of_all_leaves():
    assert conditions.size(LABELS) == 4
    assert conditions.size(TREE) == 4
    assert conditions.size({"e": jnp.zeros((0, 3))}) == 0


@pytest.mark.parametrize(
    ("c", "shapes"),
    [
        ({"a": np.zeros(3), "b": np.zeros((4, 3))}, r"\[\(3,\), \(4, 3\)\]"),
        ([0, 1, 2], r"\[\(\), \(\), \(\)\]"),
        (np.float32(1.0), r"\[\(\)\]"),
        ({"a": np.zeros(3), "b": 1.0}, r"\[\(3,\), \(\)\]"),
        (None, r"\[\]"),
        ({}, r"\[\]"),
    ],
)
def test_leaves_without_one_leading_axis_are_refused(c, shapes):
    with pytest.raises(
        ValueError, match="expected conditions with one leading axis, got .*" + shapes
    ):
        conditions.size(c)


def test_take_is_of_every_leaf_and_of_any_shape():
    index = np.asarray([[3, 1], [0, 0]])
    np.testing.assert_array_equal(conditions.take(LABELS, index), [[0, 0], [2, 2]])
    found = conditions.take(TREE, index)
    assert found["text"].shape == (2, 2, 3, 2)
    np.testing.assert_array_equal(found["text"][0, 1], TREE["text"][1])
    np.testing.assert_array_equal(found["more"][0], index)
    assert found["more"][1] is None
    np.testing.assert_array_equal(
        conditions.take(jnp.asarray(LABELS), jnp.asarray(index[0])), [0, 0]
    )


def test_repeat_keeps_copies_of_a_condition_together():
    np.testing.assert_array_equal(conditions.repeat(LABELS, 2), [2, 2, 0, 0, 1, 1, 0, 0])
    found = conditions.repeat(TREE, 3)
    np.testing.assert_array_equal(found["text"][::3], TREE["text"])
    np.testing.assert_array_equal(found["text"][2::3], TREE["text"])
    assert found["mask"].dtype == bool


def test_flatten_undoes_reshape():
    split = conditions.reshape(TREE, 2, 2)
    assert (split["text"].shape, split["more"][0].shape) == ((2, 2, 3, 2), (2, 2))
    np.testing.assert_array_equal(split["text"][1, 0], TREE["text"][2])
    again = conditions.flatten(split)
    np.testing.assert_array_equal(again["text"], TREE["text"])
    np.testing.assert_array_equal(again["mask"], TREE["mask"])
    deep = conditions.flatten(conditions.reshape(TREE, 2, 1, 2), 3)
    np.testing.assert_array_equal(deep["more"][0], np.arange(4))


# What comes in from outside


@pytest.mark.parametrize(
    ("given", "expected", "dtype"),
    [
        ([1, 2, 3], [1, 2, 3], np.int32),
        ([[0.5, 1], [2, 3]], [[0.5, 1.0], [2.0, 3.0]], np.float32),
        ([True, False], [True, False], np.bool_),
        (np.arange(3, dtype=np.uint8), [0, 1, 2], np.int32),
        (np.asarray([-(2**31), 2**31 - 1]), [-(2**31), 2**31 - 1], np.int32),
        (np.asarray([0.5, 1.5]), [0.5, 1.5], np.float32),
        (np.asarray([0.5], np.float16), [0.5], np.float32),
        (jnp.asarray([0.5, 1.5], jnp.bfloat16), [0.5, 1.5], np.float32),
        (np.zeros((0, 3)), np.zeros((0, 3)), np.float32),
        ([], [], np.float32),
    ],
)
def test_checked_leaves_are_numpy_in_32_bits(given, expected, dtype):
    found = conditions.checked(given)
    assert isinstance(found, np.ndarray)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, np.asarray(expected, dtype))


def test_checked_keeps_the_structure_and_takes_lists_as_arrays():
    found = conditions.checked({"label": [3, 1], "text": (np.zeros((2, 4)), [[1.0], [2.0]])}, 2)
    np.testing.assert_array_equal(found["label"], [3, 1])
    assert [leaf.shape for leaf in found["text"]] == [(2, 4), (2, 1)]
    assert conditions.size(found) == 2


@pytest.mark.parametrize(
    ("given", "count", "message"),
    [
        ([0, 1], 3, r"c: expected 3 rows, one an example, got shape \(2,\)"),
        ({"a": [0, 1], "b": [0, 1, 2]}, None, r"c\['b'\]: expected 2 rows, .* got shape \(3,\)"),
        ({"a": [0, 1], "b": 1.0}, 2, r"c\['b'\]: expected 2 rows, .* got shape \(\)"),
        (3, None, r"c: expected rows, one an example, got shape \(\)"),
        ((1, 2), None, r"c\[0\]: expected rows, one an example, got shape \(\)"),
        (None, 3, "expected conditions, arrays with one row an example, got None"),
        ({}, None, "expected conditions, arrays with one row an example, got {}"),
        ([0.0, np.nan], 2, "c: expected finite values, got NaN or inf"),
        ({"e": np.asarray([[np.inf]])}, 1, r"c\['e'\]: expected finite values"),
        (np.asarray([1e300]), 1, "c: expected finite values"),
        ([0, 2**31], 2, "c: expected integers that int32 holds, got 2147483648"),
        (np.asarray([-(2**31) - 1, 0]), 2, "c: .* int32 holds, got -2147483649"),
        (["cat", "dog"], 2, "c: expected numbers, got <U3"),
        (["1", "2"], 2, "c: expected numbers, got <U1"),
        ([{"a": 1}, {"a": 2}], 2, "c: expected numbers, got object"),
        (np.asarray([1j]), 1, "c: expected numbers, got complex128"),
        ([[1, 2], [3]], 2, r"c: expected rows of one shape, got \[\[1, 2\], \[3\]\]"),
    ],
)
def test_what_is_no_condition_is_named(given, count, message):
    with pytest.raises(ValueError, match=message):
        conditions.checked(given, count)


@pytest.mark.parametrize(
    ("c", "are_labels"),
    [
        (LABELS, True),
        (LABELS.astype(np.uint8), True),
        (jnp.asarray(LABELS), True),
        (LABELS.astype(np.float32), False),
        (LABELS > 0, False),
        (LABELS[:, None], False),
        ({"label": LABELS}, False),
        ([2, 0], False),
        (None, False),
    ],
)
def test_labels_are_one_array_of_integers(c, are_labels):
    found = conditions.labels_of(c)
    assert found is (c if are_labels else None)


# Strata


def test_strata_are_those_given_or_the_labels_or_none():
    found = conditions.strata_of(LABELS)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, LABELS)
    given = conditions.strata_of(LABELS, [1, 1, 0, 0])
    np.testing.assert_array_equal(given, [1, 1, 0, 0])
    assert conditions.strata_of(TREE) is None
    np.testing.assert_array_equal(conditions.strata_of(TREE, np.zeros(4, np.int64)), [0] * 4)


@pytest.mark.parametrize(
    ("stratum", "message"),
    [
        ([0, 1], r"stratum: expected integers \(4,\), got int64 \(2,\)"),
        ([0.0, 1.0, 1.0, 0.0], r"stratum: expected integers \(4,\), got float64 \(4,\)"),
        ([[0], [1], [1], [0]], r"stratum: expected integers \(4,\), got int64 \(4, 1\)"),
        ([0, -1, 1, 1], "stratum: expected integers >= 0, got -1"),
        ([0, 2**40, 1, 1], "stratum: expected integers that int32 holds, got 1099511627776"),
    ],
)
def test_strata_that_are_no_counts_are_named(stratum, message):
    with pytest.raises(ValueError, match=message):
        conditions.strata_of(TREE, stratum)


def test_negative_labels_are_no_strata():
    with pytest.raises(ValueError, match="expected integers >= 0, got -3"):
        conditions.strata_of(np.asarray([0, -3]))


def test_representatives_are_the_first_of_every_stratum():
    found = conditions.representatives(TREE, np.asarray([1, 0, 2, 0]))
    np.testing.assert_array_equal(found["more"][0], [1, 0, 2])
    np.testing.assert_array_equal(found["text"], TREE["text"][[1, 0, 2]])
    np.testing.assert_array_equal(conditions.representatives(LABELS, LABELS), [0, 1, 2])


@pytest.mark.parametrize(
    ("stratum", "message"),
    [
        ([0, 3, 3, 1], r"of every stratum, got none of \[2\]"),
        ([1, 1, 1, 1], r"of every stratum, got none of \[0\]"),
        ([10**9, 0, 0, 0], r"got none of \[1, 2, 3, 4, 5, 6, 7, 8, 9, 10\]"),
        ([], r"of every stratum, got none of \[0\]"),
        ([-1, 0, 1, 1], "expected strata >= 0, got -1"),
    ],
)
def test_a_stratum_without_an_example_is_named(stratum, message):
    with pytest.raises(ValueError, match=message):
        conditions.representatives(LABELS, np.asarray(stratum, np.int32))
