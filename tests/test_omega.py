import dataclasses
import functools

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from lgd import guidance, omega, schedules
from lgd.encoders import Labels, Nothing, Several, Tokens, Vectors
from lgd.omega import (
    BinTable,
    ByLabel,
    LearnedModel,
    Nearest,
    Network,
    PerDirection,
    StepTable,
    Support,
    bind,
    grid_support,
    projected_clip,
)

FLOW = schedules.rectified_flow()
OUTPUTS = ("projected", "relu", "softplus")
SMALL = {"schedule": FLOW, "width": 8, "depth": 1, "init_omega": 1.3, "omega_max": 2.5}
QUERY = {
    "s": jnp.array([0.0, 0.1, 0.2, 0.45, 0.0]),
    "t": jnp.array([1.0, 0.3, 0.6, 0.5, 0.01]),
}
VECTORS = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4)), jnp.float32)
CONDITIONS = {
    "class": jnp.array([0, 1, 2, 0, 1]),
    "vector": VECTORS,
    "none": jnp.zeros((5, 2)),
}
ENCODERS = {"class": Labels(3), "vector": Vectors(4), "none": Nothing()}
SUPPORTS = [
    Support(),
    Support(s_min=0.05, t_max=0.95, gap_min=0.1),
    Support(s_min=0.2, t_max=0.9, gap_min=0.05, gap_max=0.3),
    Support(s_min=0.0, t_max=1.0, gap_min=0.25, gap_max=0.25),
]


@pytest.fixture
def unchecked():
    """jaxtyping's own check of arguments is off, as it is outside these tests."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


C = jnp.arange(3)


def f32(values):
    return jnp.asarray(values, jnp.float32)


def random_like(params, scale=1.0):
    leaves, structure = jax.tree.flatten(params)
    rng = np.random.default_rng(1)
    return jax.tree.unflatten(structure, [f32(scale * rng.normal(size=x.shape)) for x in leaves])


@functools.cache
def small_network(condition, output="projected"):
    model = Network(encoder=ENCODERS[condition], output=output, **SMALL)
    c = CONDITIONS[condition]
    return model, model.init(jax.random.key(0), c[:1])  # not jitted: six models share their parts


@pytest.fixture(params=CONDITIONS, scope="module")
def conditioned(request):
    """(condition's name, jitted apply(params, s, t, c), first params)."""
    model, params = small_network(request.param, "softplus")
    return (
        request.param,
        jax.jit(lambda params, s, t, c: model.apply(params, s=s, t=t, c=c)),
        params,
    )


@pytest.fixture(params=OUTPUTS, scope="module")
def by_output(request):
    """(output's name, jitted (omega, gradients of weighted sum) of params and weights, params)."""
    model, params = small_network("class", request.param)

    @jax.jit
    def evaluate(params, weights):
        def total(params):
            omega = model.apply(params, c=CONDITIONS["class"], **QUERY)
            return jnp.sum(weights * omega), omega

        slopes, omega = jax.grad(total, has_aux=True)(params)
        return omega, slopes

    return request.param, evaluate, params


def test_every_condition_starts_at_the_initial_value(conditioned):
    name, apply, params = conditioned
    np.testing.assert_allclose(apply(params, c=CONDITIONS[name], **QUERY), 1.3, rtol=1e-6)


def test_every_output_starts_at_the_initial_value(by_output):
    name, evaluate, params = by_output
    omega, _ = evaluate(params, jnp.ones(5))
    np.testing.assert_allclose(omega, 1.3, rtol=1e-6)
    assert name == "softplus" or (omega == np.float32(1.3)).all()


def test_gradients_reach_every_layer_from_the_second_step_on(by_output):
    _, evaluate, params = by_output
    weights = f32([1.0, -2.0, 0.5, 1.5, 0.7])
    _, slopes = evaluate(params, weights)
    last = slopes["params"]["Dense_3"]
    assert np.any(last["kernel"])
    params = jax.tree.map(lambda p, slope: p - 0.01 * slope, params, slopes)
    _, slopes = evaluate(params, weights)
    still = [jax.tree_util.keystr(k) for k, g in jax.tree.leaves_with_path(slopes) if not g.any()]
    assert still == []
    assert np.isfinite(jnp.concatenate([g.ravel() for g in jax.tree.leaves(slopes)])).all()


def with_logit(params, z):
    """Params whose last layer gives z everywhere."""
    last = {"kernel": jnp.zeros_like(params["params"]["Dense_3"]["kernel"]), "bias": f32([z])}
    return {"params": params["params"] | {"Dense_3": last}}


@pytest.mark.parametrize("z", [-30.0, -1.0, 0.5, 2.0, 30.0])
def test_output_maps(by_output, z):
    name, evaluate, params = by_output
    bounded = {
        "projected": np.clip(z, 0.0, 2.5),
        "relu": min(max(z, 0.0), 2.5),
        "softplus": 2.5 * np.tanh(np.log1p(np.exp(z)) / 2.5),
    }
    omega, _ = evaluate(with_logit(params, z), jnp.ones(5))
    np.testing.assert_allclose(omega, bounded[name], rtol=1e-5)
    assert ((omega >= 0.0) & (omega <= 2.5)).all()
    if name == "softplus":
        assert (omega > 0.0).all()


@pytest.mark.parametrize("z", [-1.0, 4.0])
def test_only_relu_dies_outside_the_range(by_output, z):
    """A loss that would bring omega back into its range has a gradient, but for relu."""
    name, evaluate, params = by_output
    back = -1.0 if z < 0.0 else 1.0
    _, slopes = evaluate(with_logit(params, z), jnp.full(5, back))
    slope = slopes["params"]["Dense_3"]["bias"][0]
    assert (slope * back > 0.0) == (name != "relu")
    assert slope == 0.0 or name != "relu"


def test_projected_clip_is_clip_with_the_gradient_of_a_projected_step():
    z = f32([-1.0, 0.0, 0.5, 1.0, 2.0])
    value, pull = jax.vjp(lambda z: projected_clip(z, 0.0, 1.0), z)
    np.testing.assert_array_equal(value, [0.0, 0.0, 0.5, 1.0, 1.0])
    np.testing.assert_array_equal(pull(jnp.full(5, 3.0))[0], [0.0, 0.0, 3.0, 3.0, 3.0])
    np.testing.assert_array_equal(pull(jnp.full(5, -3.0))[0], [-3.0, -3.0, -3.0, 0.0, 0.0])


def test_network_reads_its_condition_or_none(conditioned):
    name, apply, params = conditioned
    params = random_like(params, 0.5)
    where = {"s": jnp.full(5, 0.2), "t": jnp.full(5, 0.5)}
    omega = np.asarray(apply(params, c=CONDITIONS[name], **where))
    flat = np.asarray(CONDITIONS[name]).reshape(5, -1)
    same = (flat == flat[0]).all(-1)
    np.testing.assert_allclose(omega[same], omega[0], rtol=1e-6)
    assert not np.isclose(omega[~same], omega[0]).any()


@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_network_stays_in_its_range_and_reaches_its_ends(by_output, scale):
    name, evaluate, params = by_output
    omega, slopes = evaluate(random_like(params, scale), jnp.ones(5))
    assert ((omega >= 0.0) & (omega <= 2.5)).all()
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(slopes)), name


def test_network_sees_times_as_logsnr_only():
    """On another schedule, times of equal logsnr have equal omega."""
    s, t = f32([0.1, 0.3, 0.5]), f32([0.4, 0.6, 0.9])
    params = random_like(small_network("none")[1], 0.3)
    omegas = []
    for schedule in (FLOW, schedules.cosine()):
        model = Network(encoder=Nothing(), output="softplus", **(SMALL | {"schedule": schedule}))
        matched = {k: schedule.t_from_logsnr(FLOW.logsnr(u)) for k, u in (("s", s), ("t", t))}
        omegas.append(jax.jit(model.apply)(params, c=jnp.zeros(3), **matched))
    np.testing.assert_allclose(*omegas, rtol=1e-4)
    assert np.ptp(omegas[0]) > 1e-3


def random_pairs():
    s, t = np.sort(np.random.default_rng(2).uniform(size=(2, 300)), axis=0)
    return f32(s), f32(t)


def is_inside(support, s, t, slack):
    return (
        (s >= support.s_min - slack)
        & (t <= support.t_max + slack)
        & (t - s >= support.gap_min - slack)
        & (t - s <= support.gap_max + slack)
    )


@pytest.mark.parametrize("support", SUPPORTS)
def test_clamped_pairs_are_supported_and_supported_pairs_stay(support):
    pairs = random_pairs()
    s, t = (np.asarray(u) for u in support.clamp(*pairs))
    assert is_inside(support, s, t, slack=1e-6).all()
    already = is_inside(support, *pairs, slack=-1e-6)
    for before, after in zip(pairs, (s, t), strict=True):
        np.testing.assert_array_equal(after[already], before[already])


@pytest.mark.parametrize("support", SUPPORTS)
def test_clamp_finds_the_nearest_pair_with_the_nearest_t(support):
    pairs = np.asarray(random_pairs())
    s, t = (np.asarray(u) for u in support.clamp(*random_pairs()))
    lattice = np.linspace(0.0, 1.0, 401)
    all_s, all_t = np.meshgrid(lattice, lattice, indexing="ij")
    allowed = is_inside(support, all_s, all_t, slack=1e-9)
    reachable_t = lattice[allowed.any(axis=0)]
    for wanted_s, wanted_t, got_s, got_t in zip(*pairs[:, :40], s[:40], t[:40], strict=True):
        best_t = np.abs(reachable_t - wanted_t).min()
        assert abs(got_t - wanted_t) <= best_t + 1e-6
        near = allowed & (np.abs(all_t - got_t) <= 0.5 / 400 + 1e-6)
        best_s = np.abs(all_s[near] - wanted_s).min()
        assert abs(got_s - wanted_s) <= best_s + 1.0 / 400


def test_support_of_a_grid_spans_its_steps():
    found = grid_support((1.0, 0.6, 0.1))
    np.testing.assert_allclose(found, Support(s_min=0.1, t_max=1.0, gap_min=0.4, gap_max=0.5))


def test_models_ask_inside_their_support_only():
    support = SUPPORTS[2]
    models = (
        (BinTable(support=support), {"values": f32(np.arange(100.0).reshape(1, 10, 10))}),
        (
            Network(encoder=Nothing(), support=support, **SMALL),
            random_like(small_network("none")[1]),
        ),
    )
    s, t = random_pairs()
    inner_s, inner_t = support.clamp(s, t)
    for model, params in models:
        omega_fn = jax.jit(bind(model, params))
        found = omega_fn(s=s, t=t, c=jnp.zeros(300))
        np.testing.assert_array_equal(found, omega_fn(s=inner_s, t=inner_t, c=jnp.zeros(300)))


@pytest.fixture(scope="module")
def step_table():
    table = StepTable(times=(0.9, 0.5, 0.2, 0.0), rows=ByLabel(2), omega_max=5.0)
    params = {"values": f32([[3.0, 1.0, 2.0], [0.5, 4.0, 0.0]])}
    return jax.jit(lambda t, c: table.apply(params, s=jnp.zeros_like(t), t=t, c=c))


@pytest.mark.parametrize(
    ("c", "at_knots", "between"),
    [(0, [3.0, 1.0, 2.0], [2.0, 1.5]), (1, [0.5, 4.0, 0.0], [2.25, 2.0])],
)
def test_step_table_is_exact_at_its_steps_and_linear_between(step_table, c, at_knots, between):
    knots, halfway = f32([0.9, 0.5, 0.2]), f32([0.7, 0.35, 0.35])
    np.testing.assert_array_equal(step_table(knots, jnp.full(3, c)), at_knots)
    np.testing.assert_allclose(step_table(halfway, jnp.full(3, c))[:2], between, rtol=1e-5)
    outside = f32([1.0, 0.1, 0.0])
    np.testing.assert_array_equal(step_table(outside, jnp.full(3, c)), np.take(at_knots, [0, 2, 2]))


def test_step_table_gives_every_example_the_row_of_its_class(step_table):
    np.testing.assert_array_equal(
        step_table(f32([0.9, 0.5, 0.2]), jnp.array([1, 0, 1])), [0.5, 1, 0]
    )


@pytest.mark.parametrize("times", [(1.0, 0.0), (1.0, 0.75, 0.5, 0.0)])
def test_step_table_without_classes_ignores_s_and_the_condition(times):
    table = StepTable(times=times)
    params = {"values": jnp.arange(1.0, len(times))[None]}
    t = f32(times[:-1])
    apply = jax.jit(lambda s: table.apply(params, s=s, t=t, c=jnp.full((len(t), 6), 9.0)))
    for s in (jnp.zeros_like(t), 0.9 * t):
        np.testing.assert_array_equal(apply(s), params["values"][0])


def test_bin_centres_tile_the_support():
    """s in [.2, .8] and t in [.3, .9]: three bins of width .2 each."""
    support = Support(s_min=0.2, t_max=0.9, gap_min=0.1)
    s_centres, t_centres = BinTable(support=support, num_bins=3).bin_centres()
    np.testing.assert_allclose(s_centres, [0.3, 0.5, 0.7], rtol=1e-6)
    np.testing.assert_allclose(t_centres, [0.4, 0.6, 0.8], rtol=1e-6)


@pytest.fixture(scope="module")
def bin_table():
    """Class k holds k + s + 10 t + 100 s t at the centres, which are .125, .375, .625, .875."""
    table = BinTable(rows=ByLabel(2), num_bins=4)
    centres = np.array([0.125, 0.375, 0.625, 0.875])
    s, t = np.meshgrid(centres, centres, indexing="ij")
    params = {"values": f32(np.stack([k + s + 10 * t + 100 * s * t for k in (0, 1)]))}
    return jax.jit(lambda s, t, c: table.apply(params, s=s, t=t, c=c))


@pytest.mark.parametrize("c", [0, 1])
def test_bin_table_is_bilinear_between_centres_and_flat_beyond(bin_table, c):
    s = f32([0.125, 0.375, 0.375, 0.2, 0.15, 0.01, 0.6])
    t = f32([0.375, 0.625, 0.875, 0.7, 0.16, 0.99, 0.8])
    inner_s, inner_t = (np.clip(np.float64(u), 0.125, 0.875) for u in (s, t))
    expected = c + inner_s + 10 * inner_t + 100 * inner_s * inner_t
    np.testing.assert_allclose(bin_table(s, t, jnp.full(7, c)), expected, rtol=1e-5)


@pytest.mark.parametrize("make", [lambda **k: StepTable(times=(1.0, 0.5, 0.2, 0.0), **k), BinTable])
def test_tables_start_at_their_initial_value_and_project_into_the_range(make):
    table = make(rows=ByLabel(2), init_omega=0.7, omega_max=1.5)
    params = table.init(jax.random.key(0), C[:1])
    shape = params["values"].shape
    assert shape[0] == 2
    np.testing.assert_array_equal(params["values"], np.full(shape, 0.7, np.float32))
    spread = f32(np.linspace(-3.0, 3.0, np.prod(shape)).reshape(shape))
    projected = table.project({"values": spread})["values"]
    np.testing.assert_array_equal(projected, np.clip(spread, 0.0, 1.5))
    assert make().init(jax.random.key(0), C)["values"].shape == (1, *shape[1:])
    signed = make(rows=ByLabel(2), omega_min=-1.0, omega_max=1.5).project({"values": spread})
    np.testing.assert_array_equal(signed["values"], np.clip(spread, -1.0, 1.5))


def digits(*, s, t, c):
    """A schedule whose value tells where it was asked, but for class 0, where it is negative."""
    return (100.0 * t + 10.0 * s + c) * jnp.where(c > 0, 1.0, -1.0)


def test_step_table_tabulates_a_schedule_within_its_range():
    table = StepTable(times=(1.0, 0.5, 0.0), rows=ByLabel(3), omega_max=90.0)
    found = jax.jit(lambda: table.tabulate(digits, C))()["values"]
    np.testing.assert_array_equal(found, [[0.0, 0.0], [90.0, 51.0], [90.0, 52.0]])


def test_bin_table_tabulates_a_schedule_at_its_supported_centres():
    """Centres are .3, .7 for s and .4, .8 for t; (.7, .4) becomes (.3, .4)."""
    support = Support(s_min=0.1, t_max=1.0, gap_min=0.1)
    table = BinTable(support=support, rows=ByLabel(3), num_bins=2, omega_max=85.0)
    found = jax.jit(lambda: table.tabulate(digits, C))()["values"]
    np.testing.assert_array_equal(found[0], 0.0)
    np.testing.assert_allclose(found[1], [[44.0, 84.0], [44.0, 85.0]], rtol=1e-6)
    np.testing.assert_allclose(found[2], [[45.0, 85.0], [45.0, 85.0]], rtol=1e-6)


@pytest.mark.parametrize(
    "model",
    [
        Network(schedule=FLOW, encoder=Labels(3)),
        Network(schedule=FLOW, encoder=Several({"a": Labels(3), "b": Tokens(2)})),
        StepTable(times=(1.0, 0.5, 0.0)),
        BinTable(rows=ByLabel(3)),
        PerDirection(models=(StepTable(times=(1.0, 0.0)), BinTable(rows=Nearest(3)))),
    ],
)
def test_models_are_contracts_equal_by_value(model):
    assert isinstance(model, LearnedModel)
    twin = type(model)(**vars(model))
    assert (twin, hash(twin)) == (model, hash(model))


def test_projection_leaves_a_networks_params_alone():
    model, params = small_network("none")
    assert model.project(params) is params


@pytest.mark.parametrize(
    "call",
    [
        lambda: Network(schedule=FLOW, encoder=Labels(2), width=0),
        lambda: Network(schedule=FLOW, encoder=Labels(2), depth=0),
        lambda: Network(schedule=FLOW, encoder=Labels(2), output="tanh"),
        lambda: Network(schedule=FLOW, encoder=Labels(2), init_omega=0.0),
        lambda: Network(schedule=FLOW, encoder=Labels(2), init_omega=3.0, omega_max=3.0),
        lambda: Network(schedule=FLOW, encoder=Labels(2), num_features=-1),
        lambda: Network(schedule=FLOW, encoder=Labels(2), omega_min=-1.5),
        lambda: Network(schedule=FLOW, encoder=Labels(2), omega_min=-0.5, output="relu"),
        lambda: BinTable(omega_min=0.5),
        lambda: StepTable(times=(1.0,)),
        lambda: StepTable(times=(0.0, 1.0)),
        lambda: StepTable(times=(1.0, 0.5, 0.5, 0.0)),
        lambda: StepTable(times=(1.0, 0.0), init_omega=-1.0),
        lambda: BinTable(num_bins=1),
        lambda: BinTable(init_omega=20.0),
        lambda: ByLabel(0),
        lambda: Nearest(0),
    ],
)
def test_bad_arguments_raise(unchecked, call):
    with pytest.raises(ValueError, match=r"expected .*, got"):
        call()


# Features and directions


def features_of(n):
    return jnp.asarray(np.random.default_rng(0).normal(size=(n, 4)), jnp.float32)


def moved(params, seed=0):
    """Parameters with noise on them, so that omega depends on everything."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    noise = [
        0.3 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, [a + b for a, b in zip(leaves, noise, strict=True)])


@pytest.mark.slow
def test_a_network_may_take_features():
    times = {"s": jnp.linspace(0.1, 0.4, 6), "t": jnp.linspace(0.5, 0.9, 6)}
    model = omega.Network(schedule=FLOW, encoder=Nothing(), width=8, depth=1, num_features=4)
    features, c = features_of(6), jnp.zeros(6, jnp.int32)
    params = model.init(jax.random.key(0), c)
    start = model.apply(params, **times, c=c, features=features)
    np.testing.assert_allclose(start, model.init_omega, rtol=1e-6)
    params = moved(params)
    fn = omega.bind(model, params)
    assert guidance.takes_features(fn)
    found = fn(**times, c=c, features=features)
    assert np.abs(np.asarray(fn(**times, c=c, features=-features) - found)).max() > 1e-3
    with pytest.raises(ValueError, match="expected 4 features, got 0"):
        model.apply(params, **times, c=c)
    plain = omega.Network(schedule=FLOW, encoder=Nothing(), width=8, depth=1)
    unfeatured = omega.bind(plain, plain.init(jax.random.key(0), c))
    assert not guidance.takes_features(unfeatured)
    with pytest.raises(ValueError, match="expected 0 features, got 4"):
        plain.apply(unfeatured.params, **times, c=c, features=features)
    with pytest.raises(ValueError, match=r"expected no features, got \(6, 4\)"):
        unfeatured(**times, c=c, features=features)


def test_models_of_several_directions_stand_side_by_side():
    times = {"s": jnp.linspace(0.1, 0.4, 6), "t": jnp.linspace(0.5, 0.9, 6)}
    table = omega.StepTable(times=(1.0, 0.5, 0.0), rows=ByLabel(2))
    network = omega.Network(schedule=FLOW, encoder=Labels(2), width=8, depth=1, num_features=4)
    model = omega.PerDirection(models=(table, network))
    params = model.init(jax.random.key(0), C[:2])
    params = ({"values": params[0]["values"] - 3.0}, moved(params[1]))
    c, features = jnp.arange(6) % 2, features_of(6)
    found = omega.bind(model, params)(**times, c=c, features=features)
    np.testing.assert_array_equal(found[:, 0], table.apply(params[0], **times, c=c))
    expected = network.apply(params[1], **times, c=c, features=features)
    np.testing.assert_array_equal(found[:, 1], expected)
    projected = model.project(params)
    np.testing.assert_array_equal(projected[0]["values"], 0.0)
    other = dataclasses.replace(network, num_features=3)
    for models in ((), (network, other)):
        with pytest.raises(ValueError, match="expected models that agree on num_features"):
            omega.PerDirection(models=models)
