"""Checks of arguments: what passes comes back as it should be, all else is named and is short."""

import jax.numpy as jnp
import numpy as np
import pytest

from lgd.machinery import arguments


@pytest.mark.parametrize("value", [3, np.int64(3), jnp.int32(3), np.array(3)])
def test_whole_numbers_come_back_as_int(value):
    assert type(arguments.positive_int("num_steps", value)) is int


@pytest.mark.parametrize(
    "value",
    [0, -1, 2.0, 2.5, "2", True, None, [3], np.array([3]), np.bool_(True), 1j, float("nan")],
)
def test_other_counts_are_refused(value):
    with pytest.raises(
        ValueError, match=r"^num_steps: expected a whole number >= 1, got "
    ) as error:
        arguments.positive_int("num_steps", value)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize("value", [0, 0.5, np.float32(0.5), jnp.asarray(0.5), 1])
def test_finite_numbers_come_back_as_float(value):
    assert type(arguments.finite("churn", value, low=0, high=1)) is float


@pytest.mark.parametrize(
    "value", [-0.1, 1.1, np.nan, np.inf, "0.5", None, True, [0.5], np.ones(1), 10**400, 1j]
)
def test_other_numbers_are_refused(value):
    with pytest.raises(ValueError, match=r"^churn: expected a finite number from 0 to 1, got "):
        arguments.finite("churn", value, low=0, high=1)


def test_a_name_that_is_nearly_right_is_guessed():
    assert arguments.one_of("solver", "heun", ["ddim", "heun"]) == "heun"
    with pytest.raises(ValueError, match=r"got 'huen'; did you mean 'heun'\?"):
        arguments.one_of("solver", "huen", ["ddim", "heun"])
    with pytest.raises(ValueError, match=r"got 3$"):
        arguments.one_of("solver", 3, ["ddim", "heun"])


def test_classes_are_no_instances_of_themselves():
    class Right:
        def step(self):
            pass

    right = Right()
    assert arguments.having("solver", right, ["step"], "a solver") is right
    with pytest.raises(ValueError, match=r"the class Right and no instance of it; call it: Right"):
        arguments.having("solver", Right, ["step"], "a solver")
    with pytest.raises(ValueError, match="solver: expected a solver, got 'x', which has no step"):
        arguments.having("solver", "x", ["step"], "a solver")


@pytest.mark.parametrize(
    "value", [np.zeros(10**6), "x" * 10**6, list(range(10**5)), {i: i for i in range(10**5)}]
)
def test_what_came_is_described_in_few_words(value):
    assert len(str(arguments.wrong("c", "labels", value))) < 200
