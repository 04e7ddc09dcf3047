"""Rows of tables, what models answer about themselves, and guidance as a value."""

import csv
import dataclasses
import io
import json
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgd import guidance, omega, schedules
from lgd.encoders import Labels, Several, Vectors
from lgd.omega import (
    BinTable,
    ByLabel,
    Guidance,
    Learned,
    Nearest,
    Network,
    One,
    PerDirection,
    StepTable,
    Support,
    bind,
    rows_for,
)
from lgd.types import OmegaModel

FLOW = schedules.rectified_flow()
KEY = jax.random.key(0)
TIMES = (1.0, 0.5, 0.25, 0.0)
SUPPORT = Support(s_min=0.1, t_max=0.9, gap_min=0.2)
TABLES = {
    "steps": lambda **settings: StepTable(times=TIMES, **settings),
    "bins": lambda **settings: BinTable(support=SUPPORT, num_bins=3, **settings),
}
VECTORS = jnp.asarray([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]])
POINTS = {"s": jnp.asarray([0.1, 0.2, 0.3]), "t": jnp.asarray([0.4, 0.9, 0.6])}


def f32(values):
    return jnp.asarray(values, jnp.float32)


def numbered(table, c, scale=1.0):
    """Parameters whose values all differ."""
    params = table.init(KEY, c)
    values = params["values"]
    return params | {
        "values": scale * jnp.arange(values.size, dtype=jnp.float32).reshape(values.shape)
    }


LABELS = Labels(3)


def network(encoder=LABELS, **settings):
    return Network(**({"schedule": FLOW, "encoder": encoder, "width": 4, "depth": 1} | settings))


def moved(params, scale=0.3):
    leaves, structure = jax.tree.flatten(params)
    rng = np.random.default_rng(1)
    return jax.tree.unflatten(
        structure, [x + f32(scale * rng.normal(size=x.shape)) for x in leaves]
    )


# Rows


def test_rows_for_conditions():
    assert rows_for(jnp.array([0, 4, 2])) == ByLabel(5)
    assert rows_for(VECTORS) == One()
    assert rows_for({"label": jnp.arange(3)}) == One()
    assert (One().count, ByLabel(5).count, Nearest(2).count) == (1, 5, 2)


@pytest.mark.parametrize("make", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize("label", [-1, -2, 2, 9])
def test_a_label_outside_a_table_is_nan_where_it_is_traced_and_an_error_elsewhere(make, label):
    table, c = make(rows=ByLabel(2)), jnp.array([0, 1, label])
    params = numbered(table, c[:2])
    omega_fn = bind(table, params)
    found = jax.jit(lambda c: omega_fn(**POINTS, c=c))(c)
    assert np.isfinite(found[:2]).all()
    assert np.isnan(found[2])
    with pytest.raises(ValueError, match=rf"expected labels in \[0, 2\), got {label}"):
        omega_fn(**POINTS, c=c)


def test_no_gradient_of_a_query_outside_reaches_the_table():
    table = StepTable(times=TIMES, rows=ByLabel(2))

    def total(params, c):
        return jnp.nansum(table.apply(params, **POINTS, c=c))

    slopes = jax.jit(jax.grad(total))(numbered(table, jnp.arange(2)), jnp.array([5, 5, 0]))
    np.testing.assert_array_equal(slopes["values"][1], 0.0)
    assert slopes["values"][0].sum() == pytest.approx(1.0)


@pytest.mark.parametrize("make", TABLES.values(), ids=TABLES)
def test_conditions_of_another_kind_are_refused(make):
    for rows, c in ((ByLabel(2), VECTORS), (Nearest(2), jnp.arange(3))):
        table = make(rows=rows)
        with pytest.raises(ValueError, match=r"expected .*, got"):
            table.init(KEY, c)
        params = {"values": jnp.ones((2, *numbered(make(), c)["values"].shape[1:]))}
        with pytest.raises(ValueError, match=r"expected .*, got"):
            table.apply(params | {"centroids": VECTORS[:2]}, **POINTS, c=c)


@pytest.mark.parametrize("make", TABLES.values(), ids=TABLES)
def test_the_nearest_centroid_of_a_vector_says_its_row(make):
    """As the table by label says it, and without a gradient for the centroids."""
    table, labels = make(rows=Nearest(3)), jnp.array([2, 0, 1])
    params = numbered(table, VECTORS)
    np.testing.assert_array_equal(params["centroids"], VECTORS)
    c = VECTORS[labels] + f32([[0.9, -0.5], [-1.0, 1.0], [0.3, 0.2]])
    by_label = make(rows=ByLabel(3))
    expected = by_label.apply({"values": params["values"]}, **POINTS, c=labels)
    np.testing.assert_array_equal(table.apply(params, **POINTS, c=c), expected)
    slopes = jax.grad(lambda params: table.apply(params, **POINTS, c=c).sum())(params)
    np.testing.assert_array_equal(slopes["centroids"], 0.0)
    assert slopes["values"].any()
    np.testing.assert_array_equal(table.project(params)["centroids"], VECTORS)
    unknown = table.apply(params, **POINTS, c=c.at[1].set(jnp.nan))
    np.testing.assert_array_equal(np.isnan(unknown), [False, True, False])


def test_centroids_of_many_examples_are_those_of_their_clusters():
    """Of well separated clusters, in any order; of fewer examples than rows, the examples."""
    rng = np.random.default_rng(0)
    examples = f32(np.asarray(VECTORS)[np.arange(300) % 3] + 0.1 * rng.normal(size=(300, 2)))
    for seed in range(20):  # of which one starts with an example of every cluster
        found = Nearest(3).init(jax.random.key(seed), examples)["centroids"]
        if len({int(jnp.argmin(jnp.sum((VECTORS - x[None]) ** 2, -1))) for x in found}) == 3:
            break
    order = np.lexsort(np.asarray(found.round()).T)
    means = [examples[k::3].mean(axis=0) for k in (0, 1, 2)]
    np.testing.assert_allclose(found[order], means, atol=1e-4)
    few = Nearest(3).init(KEY, VECTORS[:2])["centroids"]
    np.testing.assert_array_equal(few, VECTORS[jnp.array([0, 1, 0])])


@pytest.mark.sampled(3)
@pytest.mark.parametrize("make", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize(
    "dtype", [jnp.bfloat16, pytest.param(jnp.float16, marks=pytest.mark.slow), jnp.float32]
)
def test_tables_take_any_precision_under_strict_promotion(make, dtype):
    """The weights are those of the same times in float32."""
    query = jax.tree.map(lambda x: x.astype(dtype), POINTS)
    for rows, c in ((ByLabel(3), jnp.arange(3)), (Nearest(3), VECTORS.astype(dtype))):
        table = make(rows=rows)
        with jax.numpy_dtype_promotion("strict"):
            params = jax.tree.map(lambda x: x.astype(dtype), numbered(table, c))
            found = jax.jit(table.apply)(params, **query, c=c)
            table.tabulate(guidance.constant(1.0), c)
        as_float = jax.tree.map(lambda x: x.astype(jnp.float32), (params, query))
        assert found.dtype == jnp.float32
        expected = table.apply(as_float[0], **as_float[1], c=c)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


# Answers


def rising(*, s, t, c):
    """A schedule that tells the label and the time."""
    return (c + 1.0) * t


def of_vectors(*, s, t, c):
    return c.sum(axis=-1) + t


@pytest.mark.parametrize("make", TABLES.values(), ids=TABLES)
def test_a_table_starts_as_the_schedule_at_its_knots(make):
    table = make(rows=ByLabel(3))
    model, params = table.started(KEY, rising, jnp.arange(3))
    assert model is table
    assert table.tabulated() is table
    jax.tree.map(np.testing.assert_array_equal, params, table.tabulate(rising, jnp.arange(3)))
    found = table.apply(params, s=f32([0.0] * 3), t=f32([0.5] * 3), c=jnp.arange(3))
    np.testing.assert_allclose(found, [0.5, 1.0, 1.5], rtol=1e-6)
    _, params = make().started(KEY, rising, jnp.array([2, 0]))  # one row: the first condition
    alone = make().apply(params, s=f32([0.0]), t=f32([0.5]), c=jnp.array([7]))
    np.testing.assert_allclose(alone, [1.5], rtol=1e-6)
    table = make(rows=Nearest(3))
    _, params = table.started(KEY, of_vectors, VECTORS)
    found = table.apply(params, s=f32([0.0] * 3), t=f32([0.5] * 3), c=VECTORS)
    np.testing.assert_allclose(found, [0.5, 4.5, 4.5], rtol=1e-6)


@pytest.mark.parametrize(
    ("rows", "c"),
    [(ByLabel(3), [0, 1]), (ByLabel(3), [1, 0, 2]), (One(), [0, 1]), (ByLabel(2), [0, 1, 1])],
)
def test_a_table_is_made_of_one_condition_for_every_row_in_order(rows, c):
    table = StepTable(times=TIMES, rows=rows)
    with pytest.raises(ValueError, match="expected one condition for every row of"):
        table.tabulate(rising, jnp.array(c))


@pytest.mark.slow
def test_a_network_starts_at_the_mean_of_the_schedule_within_its_range():
    c = jnp.array([0, 1, 2])
    model, params = network(omega_max=4.0).started(KEY, rising, c)
    mean = 2.0 * 33 / 64  # of 1, 2, 3, and of t at the start of 32 steps
    assert model.init_omega == pytest.approx(mean, rel=1e-6)
    np.testing.assert_allclose(model.apply(params, **POINTS, c=c), mean, rtol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, params, model.init(KEY, c))
    for weight, start in ((-3.0, 0.01), (90.0, 3.96)):
        model, _ = network(omega_max=4.0).started(KEY, guidance.constant(weight), c)
        assert model.init_omega == pytest.approx(start)
    signed, params = network(omega_min=-1.0).started(KEY, guidance.constant(-0.5), c)
    np.testing.assert_allclose(signed.apply(params, **POINTS, c=c), -0.5, rtol=1e-6)


NAMED = {
    "constant(1)": guidance.constant(1.0),
    "limited_interval(1, 0, 1)": guidance.limited_interval(1.0, 0.0, 1.0),
}


def test_answers_about_training():
    table, net = StepTable(times=TIMES), network()
    mixed = PerDirection(models=(table, net))
    settings = [(m.default_num_steps, m.default_learning_rate) for m in (table, net, mixed)]
    assert settings == [(200, 0.1), (300, 3e-3), (300, 3e-3)]
    assert [list(m.start_candidates(NAMED)) for m in (table, net, mixed)] == [
        list(NAMED), ["constant(1)"], ["constant(1)"]
    ]  # fmt: skip
    fine = net.tabulated()
    assert (len(fine.times), fine.rows) == (65, One())
    assert mixed.tabulated() == PerDirection(models=(table, fine))
    assert mixed.support == table.support


def test_directions_start_each_from_its_part_of_the_schedule():
    c = jnp.arange(3)
    model = PerDirection(models=(StepTable(times=TIMES, rows=ByLabel(3)), network()))
    assert (model.num_directions, model.num_features) == (2, 0)

    def of_both(*, s, t, c):
        return jnp.stack([rising(s=s, t=t, c=c), jnp.full_like(t, 2.0)], axis=-1)

    started, params = model.started(KEY, of_both, c)
    times = {"s": f32([0.0] * 3), "t": f32([0.5] * 3)}
    found = started.apply(params, **times, c=c)
    np.testing.assert_allclose(found, [[0.5, 2.0], [1.0, 2.0], [1.5, 2.0]], rtol=1e-6)
    started, params = model.started(KEY, rising, c)  # a schedule of the first direction only
    np.testing.assert_allclose(started.apply(params, **times, c=c)[:, 1], 0.01, rtol=1e-6)
    with pytest.raises(ValueError, match="expected models of one direction each"):
        PerDirection(models=(model, model))


def padded(params, like):
    def pad(x, y):
        ends = [(0, b - a) for a, b in zip(x.shape, y.shape, strict=True)]
        return jnp.pad(x, ends)

    return jax.tree.map(pad, params, like)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoder", "c"),
    [(Labels(3), jnp.arange(3)), (Several({"a": Labels(3), "b": Vectors(2)}),
      {"a": jnp.arange(3), "b": VECTORS})],
)  # fmt: skip
def test_a_narrow_network_with_zeros_is_a_wide_one(encoder, c):
    table = StepTable(times=TIMES)
    narrow, wide = (PerDirection(models=(table, network(encoder, width=width))) for width in (3, 5))
    assert narrow.thin() == wide.thin() != dataclasses.replace(network(encoder), depth=2).thin()
    assert narrow.wider(wide) == wide.wider(narrow) == wide
    assert (table.thin(), table.wider(table)) == (table, table)
    params = moved(narrow.init(KEY, c))
    like = jax.eval_shape(wide.init, KEY, c)
    expected = narrow.apply(params, **POINTS, c=c)
    np.testing.assert_allclose(wide.apply(padded(params, like), **POINTS, c=c), expected, rtol=1e-5)


# A model with its parameters


def test_a_bound_model_is_a_pytree_and_compiles_once_for_all_parameters():
    table = StepTable(times=TIMES)
    traces = []

    @jax.jit
    def total(omega_fn):
        traces.append(1)
        return omega_fn(**POINTS, c=jnp.zeros(3)).sum()

    found = [total(bind(table, {"values": jnp.full((1, 3), w)})) for w in (1.0, 2.0)]
    assert (found, traces) == ([3.0, 6.0], [1])
    doubled = jax.tree.map(lambda x: 2.0 * x, bind(table, {"values": jnp.ones((1, 3))}))
    assert isinstance(doubled, Learned)
    np.testing.assert_array_equal(doubled(**POINTS, c=jnp.zeros(3)), 2.0)
    assert repr(doubled) == f"Learned(model={table!r})"
    slopes = jax.grad(total)(doubled)
    assert slopes.params["values"].sum() == pytest.approx(3.0)


def test_a_model_of_ones_own_needs_only_the_contract():
    @dataclasses.dataclass(frozen=True)
    class Ramp:
        num_features = 0
        num_directions = 1

        def init(self, key, c):
            return jnp.zeros(())

        def apply(self, params, *, s, t, c):
            return params * t

        def project(self, params):
            return params

    assert isinstance(Ramp(), OmegaModel)
    fn = bind(Ramp(), jnp.asarray(2.0))
    np.testing.assert_array_equal(fn(**POINTS, c=jnp.zeros(3)), 2.0 * POINTS["t"])
    assert not guidance.takes_features(fn)


# Guidance


def learned(**settings):
    table = BinTable(support=SUPPORT, num_bins=3, rows=ByLabel(2))
    return Guidance(table, numbered(table, jnp.arange(2)), "constant(0.5)", **settings)


def test_guidance_is_an_omega_function_and_broadcasts():
    it = learned()
    c = jnp.array([0, 1, 1])
    expected = it.omega_fn(**POINTS, c=c)
    np.testing.assert_array_equal(it(s=POINTS["s"], t=POINTS["t"], c=c), expected)
    np.testing.assert_array_equal(jax.jit(it)(POINTS["t"], POINTS["s"], c), expected)
    one = it(0.9, 0.2, 1)
    assert one.shape == ()
    assert float(one) == expected[1]
    np.testing.assert_array_equal(it(0.9, 0.2, [0, 1, 1])[1:], [one, one])
    np.testing.assert_array_equal(it([0.9, 0.9], 0.2, 1), [one, one])
    np.testing.assert_array_equal(it(0.9, c=jnp.array([1])), it.omega_fn(
        s=f32([0.7]), t=f32([0.9]), c=jnp.array([1])))  # fmt: skip
    assert it(1, c=1) == it(1.0, 0.8, 1)
    with pytest.raises(ValueError, match="expected arrays of one length"):
        it([0.9, 0.8], 0.2, [0, 1, 1])
    with pytest.raises(ValueError, match=r"expected labels in \[0, 2\), got 2"):
        it(0.9, c=2)


def test_guidance_of_vectors_and_of_directions():
    model = PerDirection(models=(StepTable(times=TIMES), network(Vectors(2))))
    it = Guidance(model, model.init(KEY, VECTORS), "fit")
    assert it(0.5, c=VECTORS).shape == (3, 2)
    assert it.table(TIMES, VECTORS).shape == (3, 3, 2)
    with pytest.raises(ValueError, match=r"expected vectors \(b, 2\) of floats, got int32"):
        it(0.5, c=0)
    with pytest.raises(ValueError, match="c: expected the condition that this weight depends on"):
        it(0.5)


def test_guidance_takes_features_where_its_model_does():
    net = network(num_features=4)
    it = Guidance(net, moved(net.init(KEY, jnp.arange(3))), "fit")
    assert guidance.takes_features(it)
    assert not guidance.takes_features(learned())
    features = f32(np.random.default_rng(0).normal(size=(3, 4)))
    found = it(**POINTS, c=jnp.arange(3), features=features)
    np.testing.assert_array_equal(
        found, net.apply(it.params, **POINTS, c=jnp.arange(3), features=features)
    )


def test_the_table_of_a_guidance_and_its_json():
    it, grid = learned(schedule=FLOW), [0.9, 0.5, 0.0]
    table = np.asarray(it.table(grid, [0, 1]))
    for i, (t, s) in enumerate(((0.9, 0.5), (0.5, 0.0))):
        np.testing.assert_array_equal(table[i], it(t, s, [0, 1]))
    written = json.loads(it.to_json(grid, [0, 1]))
    assert "cfg_scale = 1 + omega" in written["convention"]
    for i, step in enumerate(written["steps"]):
        assert step["step"] == i
        np.testing.assert_allclose([step["t"], step["s"]], grid[i : i + 2], rtol=1e-6)
        assert step["logsnr"] == pytest.approx(2.0 * np.log((1 - grid[i]) / grid[i]), rel=1e-5)
        np.testing.assert_array_equal(step["omega"], table[i])
        np.testing.assert_array_equal(step["cfg_scale"], 1.0 + np.float64(table[i]))
    ends = json.loads(it.to_json([1.0, 0.0], [0]))["steps"][0]
    assert ends["logsnr"] == pytest.approx(-20.0, abs=0.01)  # infinite, and JSON has no word for it
    assert json.loads(learned().to_json(grid, [0]))["steps"][0]["logsnr"] is None
    lines = list(csv.DictReader(io.StringIO(it.to_csv(grid, [0, 1]))))
    assert [(line["step"], line["condition"]) for line in lines] == [*product("01", "01")]
    np.testing.assert_array_equal([float(line["omega"]) for line in lines], table.ravel())
    np.testing.assert_allclose([float(line["sigma"]) for line in lines], np.repeat(grid[:2], 2))


def test_guidance_is_shown_in_a_few_lines_without_its_numbers():
    times = tuple(np.linspace(1.0, 0.0, 101).tolist())
    table = StepTable(times=times, rows=ByLabel(1000))
    it = Guidance(
        table,
        table.init(KEY, jnp.arange(1000)),
        "constant(0.5)",
        schedule=schedules.edm(),
        history={"loss": list(range(10_000))},
        provenance={"data": "digits"},
    )
    lines = repr(it).splitlines()
    assert len(lines) == 5
    assert max(map(len, lines)) < 130
    for words in ("StepTable", "100000 parameters", "constant(0.5)", "EDM(", "digits", "loss"):
        assert words in repr(it)
    assert {it} == {it}


def test_the_default_network_has_the_encoder_of_its_conditions():
    model = omega.default_network(FLOW, {"a": VECTORS, "b": jnp.arange(3)}, SUPPORT)
    assert model == Network(
        schedule=FLOW, encoder=Several({"a": Vectors(2), "b": Labels(3)}), support=SUPPORT
    )
