"""Every way in which a model says what its unconditional input is."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgd import conditions, guidance, sampling, schedules
from lgd.denoisers import Directions, from_function
from lgd.diffusion import denoise_pair, direction_names, predictions
from lgd.machinery import parallel

pytestmark = pytest.mark.usefixtures("quick_compilation")
FLOW = schedules.rectified_flow()
LABELS = jnp.asarray([0, 1, 1, 0, 1], jnp.int32)
TABLE = jnp.asarray([[1.0, 0.2], [-0.8, 0.9], [0.1, -1.2]])  # label 2 is the null one
TEXT = jnp.asarray(np.random.default_rng(0).normal(size=(5, 2)), jnp.float32)
TOKENS = jnp.asarray(np.random.default_rng(1).normal(size=(5, 3, 2)), jnp.float32)
UNKNOWN = jnp.asarray([[0.4, -0.3]])  # what a model adds that is told nothing


def embedded(params, c):
    """What each kind of condition adds: (b, 2), or (1, 2)."""
    if c is None:
        return UNKNOWN
    if isinstance(c, dict):
        return params[c["label"]] + c["text"] if "label" in c else c["unknown"] * UNKNOWN
    if c.ndim == 1:
        return params[c]
    return c if c.ndim == 2 else jnp.sum(c, axis=1)


def x0_hat(params, x_t, t, c):
    return jnp.tanh(x_t * t[:, None] + embedded(params, c))


@dataclasses.dataclass(frozen=True)
class Case:
    """Conditions of a kind, the null of the denoiser, and what it adds: rows (5, 2)."""

    c: Any
    null: Any
    adds: Any
    calls: int = 1
    pair: Any = None


def own_pair(params, x_t, t, c):
    return x0_hat(params, x_t, t, c), x0_hat(params, x_t, t, None)


CASES = {
    "label": Case(LABELS, 2, TABLE[2]),
    "label in 8 bits": Case(LABELS.astype(jnp.uint8), 2, TABLE[2]),
    "vector": Case(TEXT, np.asarray([0.5, -0.5]), jnp.asarray([0.5, -0.5])),
    "list": Case(TEXT, [0.5, -0.5], jnp.asarray([0.5, -0.5])),
    "low precision": Case(TEXT, jnp.asarray([0.5, -0.5], jnp.bfloat16), jnp.asarray([0.5, -0.5])),
    "one number": Case(TEXT, 0.0, jnp.zeros(2)),
    "tokens": Case(TOKENS, jnp.ones((3, 2)), 3.0 * jnp.ones(2)),
    "dict": Case(
        {"label": LABELS, "text": TEXT},
        {"label": 2, "text": np.asarray([0.5, -0.5])},
        TABLE[2] + jnp.asarray([0.5, -0.5]),
    ),
    "function": Case(TEXT, lambda c: -c, -TEXT),
    "function of a dict": Case(
        {"label": LABELS, "text": TEXT},
        lambda c: c | {"label": jnp.full_like(c["label"], 2)},
        TABLE[2:] + TEXT,
    ),
    "none": Case(TEXT, lambda c: None, UNKNOWN, calls=2),
    "another structure": Case(
        LABELS, lambda c: {"unknown": jnp.ones((len(c), 1))}, UNKNOWN, calls=2
    ),
    "fewer tokens": Case(TOKENS, lambda c: 0.0 * c[:, :1], jnp.zeros(2), calls=2),
    "another dtype": Case(LABELS, lambda c: 0.5 * params_of(c), 0.5 * TABLE[LABELS], calls=2),
    "pair": Case(TEXT, None, UNKNOWN, pair=own_pair),
}
every_case = pytest.mark.parametrize("name", CASES)


def params_of(c):
    return TABLE[c]


def denoiser_of(case, function=x0_hat, pair=own_pair):
    given = {"pair": pair} if case.pair is not None else {"null": case.null}
    return from_function(function, schedule=FLOW, kind="x0", **given)


def counted(case, seen):
    """The denoiser, with the rows of every evaluation appended to a list."""

    def function(params, x_t, t, c):
        jax.debug.callback(lambda x: seen.append(len(x)), x_t)
        return x0_hat(params, x_t, t, c)

    def pair(params, x_t, t, c):
        jax.debug.callback(lambda x: seen.append(2 * len(x)), x_t)
        return own_pair(params, x_t, t, c)

    return denoiser_of(case, function, pair)


@every_case
@pytest.mark.parametrize("rows", [None, [3, 0]])
def test_both_halves_are_those_of_the_model(name, rows):
    case, seen = CASES[name], []
    x_t, t = TEXT[::-1], jnp.linspace(0.2, 0.8, 5)
    rows = None if rows is None else jnp.asarray(rows)
    cond, uncond = denoise_pair(counted(case, seen), TABLE, x_t, t=t, c=case.c, rows=rows)
    jax.effects_barrier()
    np.testing.assert_allclose(cond, x0_hat(TABLE, x_t, t, case.c), rtol=1e-6)
    expected = jnp.tanh(x_t * t[:, None] + jnp.broadcast_to(case.adds, (5, 2)))
    expected = expected if rows is None else expected[rows]
    np.testing.assert_allclose(uncond, expected, rtol=1e-6)
    some = 5 if rows is None else 2
    if case.pair is not None:
        assert seen == [10]
    else:
        assert seen == ([5 + some] if case.calls == 1 else [5, some])


PATTERN = jnp.asarray([[0.0] * 5, [1.0, 0.0, 0.0, 0.5, 0.0], [0.0, 0.7, 0.0, 0.0, 0.0], [0.4] * 5])


def draw(denoiser, params, c, **settings):
    settings = {"guidance": PATTERN, "shape": (2,), "num_steps": 4} | settings
    return sampling.sample(jax.random.key(0), denoiser, params, c, **settings)


@pytest.mark.sampled(3)
@every_case
def test_skipping_gives_the_same_samples(name):
    denoiser = denoiser_of(CASES[name])
    plain, skipped = (draw(denoiser, TABLE, CASES[name].c, skip=skip) for skip in (False, True))
    assert skipped.nfe < plain.nfe
    np.testing.assert_allclose(skipped.x0, plain.x0, rtol=1e-5, atol=1e-5)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", ["label", "none", "pair"])
@pytest.mark.parametrize("skip", [False, True])
def test_network_evaluations_are_those_counted(name, skip):
    seen = []
    samples = draw(counted(CASES[name], seen), TABLE, CASES[name].c, solver="heun", skip=skip)
    jax.block_until_ready(samples.x0)
    jax.effects_barrier()
    assert sum(seen) == pytest.approx(5 * samples.nfe)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["label", "dict", "none", "pair"])
@pytest.mark.parametrize("count", [8, 5])
@pytest.mark.parametrize("skip", [False, True])
def test_devices_that_share_the_samples_change_nothing(name, count, skip):
    """Eight samples, which eight devices divide, and five, which they do not."""
    denoiser, index = denoiser_of(CASES[name]), jnp.arange(count) % 5
    denoiser, params = Directions(denoiser, {"weaker": denoiser}), (TABLE, {"weaker": -TABLE})
    given = PATTERN[:, index] if skip else guidance.constant_directions(0.7, 0.4)
    settings = {"guidance": given, "skip": skip, "num_steps": 4}
    c = conditions.take(CASES[name].c, index)
    one, eight = (
        draw(denoiser, params, c, mesh=mesh, **settings).x0
        for mesh in (None, parallel.make_mesh(8))
    )
    np.testing.assert_allclose(eight, one, rtol=1e-5, atol=1e-5)
    assert len(eight.sharding.device_set) == 8


# Directions


@every_case
def test_directions_lead_away_from_the_conditional_half_of_weaker_denoisers(name):
    case = CASES[name]
    denoiser = denoiser_of(case)
    several = Directions(denoiser, {"early": denoiser, "small": denoiser})
    params = (TABLE, {"early": 2.0 * TABLE, "small": -TABLE})
    assert direction_names(several) == ("uncond", "early", "small")
    assert direction_names(denoiser) == ("uncond",)
    given = {"t": jnp.full(5, 0.6), "c": case.c}
    cond, others = predictions(several, params, TEXT, **given)
    pair = denoise_pair(denoiser, TABLE, TEXT, **given)
    assert len(others) == 3
    np.testing.assert_array_equal(cond, pair[0])
    np.testing.assert_array_equal(others[0], pair[1])
    for found, of_name in zip(others[1:], ("early", "small"), strict=True):
        expected = denoiser.apply(params[1][of_name], TEXT, **given)
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(several.apply(params, TEXT, **given), cond, rtol=1e-6)


@pytest.mark.parametrize("weaker", [{}, {"uncond": None}])
def test_directions_need_names_of_their_own(weaker):
    denoiser = denoiser_of(CASES["label"])
    weaker = dict.fromkeys(weaker, denoiser)
    with pytest.raises(ValueError, match="expected names of weaker denoisers, not 'uncond', got"):
        Directions(denoiser, weaker)


def test_directions_are_equal_by_value():
    denoiser = denoiser_of(CASES["label"])
    one, other = (Directions(denoiser, {"early": denoiser}) for _ in range(2))
    assert (one, hash(one)) == (other, hash(other))
    assert one != Directions(denoiser, {"late": denoiser})


# Errors


MAKE = functools.partial(from_function, x0_hat, schedule=FLOW, kind="x0")


@pytest.mark.parametrize(
    ("null", "c", "message"),
    [
        (0, TEXT, "null: expected a vector of floats or a function for .* float32.*, got 0"),
        (2.0, LABELS, "null: expected a label for conditions of int32.*, got 2.0"),
        (1000, LABELS.astype(jnp.uint8), "null: expected a label that uint8 holds, got 1000"),
        (-1, LABELS.astype(jnp.uint8), "null: expected a label that uint8 holds, got -1"),
        (np.zeros(3), TEXT, r"null: expected shape \(2,\), got \(3,\)"),
        ([0.0] * 3, TEXT, r"null: expected shape \(2,\), got \(3,\)"),
        (np.zeros((5, 2)), TEXT, r"null: expected shape \(2,\), got \(5, 2\)"),
        (np.zeros(2, int), LABELS, r"null: expected shape \(\), got \(2,\)"),
        ({"label": 2}, LABELS, "null: expected a tree like c, .*, got"),
        ({"label": 2}, {"label": LABELS, "text": TEXT}, "null: expected a tree like c, .*, got"),
        (2, {"label": LABELS, "text": TEXT}, "null: expected a vector of floats or a function"),
        (np.zeros(2), {"a": TEXT, "b": TEXT}, "null: expected a tree like c"),
        (0.5, LABELS > 0, "null: expected true or false for conditions of bool"),
        (1, LABELS > 0, "null: expected true or false for conditions of bool"),
        (True, TEXT, "null: expected a vector of floats or a function for .*, got True"),
        (lambda c: c[:1], TEXT, "null: expected 5 conditions, got 1"),
        (lambda c: jnp.int32(2), LABELS, "expected conditions with one leading axis, got"),
    ],
)
def test_a_null_that_does_not_fit_the_conditions_is_named(null, c, message):
    denoiser = MAKE(null=null)
    with pytest.raises(ValueError, match=message):
        denoise_pair(denoiser, TABLE, TEXT, t=jnp.ones(5), c=c)
    with pytest.raises(ValueError, match=message):
        draw(denoiser, TABLE, c, guidance=1.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "null: expected a label, a vector, a function of c or pair=, got None"),
        ({"null": None}, "null: expected .*; a model that takes None .* null=lambda c: None"),
        ({"null": 2, "pair": own_pair}, "expected null or pair, got both"),
        ({"null": "none"}, "null: expected numbers, arrays or a function of c, got 'none'"),
        ({"null": {}}, "null: expected numbers, arrays or a function of c, got {}"),
        ({"null": [[1.0, 2.0], [3.0]]}, "null: expected numbers, arrays or a function"),
    ],
)
def test_what_makes_no_denoiser_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        MAKE(**settings)


def test_a_pair_has_no_null_and_its_shapes_are_checked():
    denoiser = MAKE(pair=lambda params, x_t, t, c: (x_t, x_t[:, :1]))
    with pytest.raises(
        ValueError, match=r"expected a denoiser with a null condition, got one .*pair="
    ):
        denoiser.null(TEXT)
    with pytest.raises(
        ValueError, match=r"expected a prediction of shape \(5, 2\), got .*\(5, 1\)"
    ):
        denoise_pair(denoiser, TABLE, TEXT, t=jnp.ones(5), c=TEXT)


def test_denoisers_are_equal_by_their_functions_and_nulls():
    for null in (2, np.asarray([0.5, -0.5]), {"label": 2, "text": [0.0, 1.0]}):
        one, other = MAKE(null=null), MAKE(null=jax.tree.map(lambda leaf: leaf, null))
        assert (one, hash(one)) == (other, hash(other))
    assert MAKE(null=2) != MAKE(null=3)
    assert MAKE(pair=own_pair) == MAKE(pair=own_pair)
