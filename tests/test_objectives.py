"""The trajectory objective: gradients through its steps, groups, grids, features, refusals."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgd import discrepancy, guidance, learn_guidance, objectives, training
from lgd.data.dataset import labelled
from lgd.denoisers import from_function
from lgd.objectives import Trajectory
from lgd.objectives.pooled import pooled_distance
from lgd.omega import Support
from lgd.types import Batch
from tests.objective_cases import COSINE, FLOW, constant, evaluate, mixture, per_class, still

pytestmark = pytest.mark.usefixtures("quick_compilation")


def members(c, n):
    """A condition for each of n members of every group."""
    return jnp.repeat(c[:, None], n, axis=1)


def test_one_step_trajectory_has_the_gradient_of_self_consistency():
    settings = {"beta": 1.75, "lam": 0.5, "churn": 0.6}
    denoiser, params = mixture(COSINE)
    m, g, key = 4, 3, jax.random.key(5)
    c, x0 = jnp.asarray([0, 1, 0]), jax.random.normal(jax.random.key(0), (3, 3))
    s, t = jnp.full(g, 0.3), jnp.full(g, 0.7)
    trajectory = Trajectory(
        times=(0.7, 0.3),
        start="data",
        num_particles=m,
        num_targets=m,
        marginal_weight=0.0,
        **settings,
    )
    batch = Batch(jnp.repeat(x0[:, None], 2 * m, axis=1), members(c, 2 * m))
    step = {"s": s, "t": t, "schedule": COSINE, "coupling": "independent"}
    energy = {"beta": settings["beta"], "lam": settings["lam"]}

    def unrolled(values):
        return trajectory(key, per_class(values), denoiser, params, batch)[0]

    def one_step(values):
        copies = batch.x0[:, :m]
        rows, _ = objectives.draw_rows(key, denoiser, params, copies, jnp.repeat(c, m), t=t)
        omega = jnp.repeat(values[c][:, None], m, axis=1)
        forms = objectives.step_forms(rows, churn=settings["churn"], **step)
        loss = objectives.gram_loss(forms, omega[:, :, None], pairs="all", **energy)
        return jnp.mean(loss), rows

    values = jnp.asarray([0.6, 1.4])
    value, gradient = jax.jit(jax.value_and_grad(unrolled))(values)
    (other, rows), expected = jax.jit(jax.value_and_grad(one_step, has_aux=True))(values)
    assert np.abs(expected).min() > 1e-3
    near = 2e-4 * np.abs(expected).max()
    np.testing.assert_allclose(gradient, expected, rtol=0.0, atol=near)
    targets = float(COSINE.sigma(s[0])) * np.asarray(rows.eps_target)
    apart = np.linalg.norm(targets[:, :, None] - targets[:, None], axis=-1) ** settings["beta"]
    real_real = settings["lam"] / 2 * apart.sum() / (g * m * (m - 1))
    near = 1e-5 * (np.abs(other) + real_real)
    np.testing.assert_allclose(value, other - real_real, rtol=0.0, atol=near)


def test_trajectory_of_an_exact_denoiser_is_best_unguided_and_compares_within_conditions():
    denoiser, params = mixture(FLOW)
    times = tuple(np.linspace(1.0, 0.0, 17).tolist())
    objective = Trajectory(times=times, num_particles=64, num_targets=64)
    c = jnp.arange(16) % 2
    drawn = denoiser.draw(jax.random.key(1), params, jnp.repeat(c, 64)).reshape(16, 64, 3)
    weights = (-0.5, 0.0, 0.6, 1.5)

    @jax.jit
    def loss(w, x0):
        key = jax.random.key(2)
        return objective(key, constant(w), denoiser, params, Batch(x0, members(c, 64)))[0]

    losses = [float(loss(w, drawn)) for w in weights]
    assert np.argmin(losses) == 1
    assert abs(losses[1]) < 0.03
    assert loss(0.0, jnp.flip(drawn, axis=0)) > 10 * losses[1] + 0.3


def test_trajectory_from_data_starts_at_the_first_members_and_ends_at_the_last():
    near = Trajectory(
        times=(0.01, 0.005, 0.0),
        start="data",
        num_particles=3,
        num_targets=2,
        lam=0.0,
        marginal_weight=0.0,
        reward=lambda x, c: x[:, 0],
        reward_weight=0.5,
    )
    first, last = jnp.full((1, 3, 2), 4.0), jnp.full((1, 2, 2), 1.0)
    batch = Batch(jnp.concatenate([first, last], axis=1), jnp.zeros((1, 5), jnp.int32))
    loss, info = evaluate(near, jax.random.key(0), constant(0.0), still(), (), batch)
    np.testing.assert_allclose(info["reward"], 4.0, atol=0.1)
    np.testing.assert_allclose(info["distance"], 3.0 * np.sqrt(2), atol=0.15)
    near = 1e-6 * (np.abs(info["distance"]) + np.abs(info["reward"]))
    np.testing.assert_allclose(loss, info["distance"] - 0.5 * info["reward"], rtol=0.0, atol=near)


@pytest.mark.slow
def test_trajectory_of_several_grids_draws_one_of_them():
    denoiser, params = mixture(FLOW)
    x0 = jax.random.normal(jax.random.key(0), (2, 4, 3))
    c = members(jnp.asarray([0, 1]), 4)
    settings = {"num_particles": 4, "num_targets": 4}
    grids = ((1.0, 0.5, 0.0), (1.0, 0.7, 0.4, 0.2, 0.0))
    several = Trajectory(times=grids[0], more_times=grids[1:], **settings)
    singles = [Trajectory(times=grid, **settings) for grid in grids]
    assert several.support == Support(0.0, 1.0, 0.2, 0.5)
    keys = jax.random.split(jax.random.key(1), 8)
    batch = Batch(x0, c)

    @functools.partial(jax.jit, static_argnums=0)
    def losses(objective, keys):
        return jax.vmap(lambda key: objective(key, constant(0.5), denoiser, params, batch)[0])(keys)

    found = losses(several, keys)
    own_keys = jax.vmap(lambda key: jax.random.split(key)[1])(keys)
    alone = np.stack([losses(single, own_keys) for single in singles])
    near = np.isclose(found, alone, rtol=0.0, atol=1e-5)  # of distances of order 1
    assert (near.sum(axis=0) == 1).all()
    assert near.any(axis=1).all()  # both were drawn


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_marginal_term_pools_the_groups(weight):
    """Two groups whose particles lie where the other's targets are: far apart, equal when pooled.

    With k points of either group at 1 and at -1, the distance within a group is 2, and pooled
    1 - 2k / (2k - 1): the cross mean less the mean over different pairs.
    """
    k = 3
    near = Trajectory(
        times=(1e-3, 5e-4, 0.0),
        start="data",
        num_particles=k,
        num_targets=k,
        marginal_weight=weight,
    )
    particles = jnp.asarray([1.0, -1.0])[:, None, None] * jnp.ones((2, k, 1))
    c = members(jnp.arange(2), 2 * k)
    batch = Batch(jnp.concatenate([particles, -particles], axis=1), c)
    loss, info = evaluate(near, jax.random.key(0), constant(0.0), still(), (), batch)
    np.testing.assert_allclose(info["distance"], 2.0, atol=0.01)
    np.testing.assert_allclose(loss, 2.0 + weight * (1.0 - 2 * k / (2 * k - 1)), atol=0.01)


# Some of many strata


def drawn_sets(count, drawn):
    """All sets of so many of the strata."""
    return jnp.asarray(list(itertools.combinations(range(count), drawn)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "drawn", "rounds", "sizes", "beta", "lam"),
    [
        (5, 2, 1, (3, 4), 1.0, 1.0),
        pytest.param(5, 3, 2, (2, 3), 1.7, 0.6, marks=pytest.mark.slow),
        pytest.param(4, 3, 1, (1, 1), 0.5, 1.0, marks=pytest.mark.slow),
        (3, 3, 2, (2, 2), 1.0, 1.0),
    ],
)
def test_the_pooled_distance_is_the_mean_over_all_draws_of_strata(
    count, drawn, rounds, sizes, beta, lam
):
    """So is its gradient; that of the drawn particles alone is not."""
    rng = np.random.default_rng(0)
    places = 2.0 * np.arange(count)[:, None, None]
    x, y = (rng.normal(size=(rounds, count, n, 2)) * (1.0 + places) + places for n in sizes)
    energy = {"beta": beta, "lam": lam}

    @jax.jit
    @jax.value_and_grad
    def of_all(x):
        return discrepancy.energy_distance(x.reshape(-1, 2), y.reshape(-1, 2), **energy)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0))
    @jax.value_and_grad
    def of_some(x, strata):
        groups = (points[:, strata].reshape(-1, *points.shape[2:]) for points in (x, y))
        return pooled_distance(*groups, drawn=drawn, num_strata=count, **energy)

    x, y = jnp.asarray(x, jnp.float32), jnp.asarray(2.0 * y, jnp.float32)
    values, slopes = of_some(x, drawn_sets(count, drawn))
    value, slope = of_all(x)
    near = 1e-5 * np.abs(y).max()
    np.testing.assert_allclose(np.mean(values), value, rtol=0.0, atol=near)
    np.testing.assert_allclose(np.mean(slopes, axis=0), slope, atol=1e-5)
    plain = [of_all(jnp.asarray(x))[0]]
    if drawn < count:
        plain = [
            discrepancy.energy_distance(x[:, k].reshape(-1, 2), y[:, k].reshape(-1, 2), **energy)
            for k in drawn_sets(count, drawn)
        ]
    assert (abs(np.mean(plain) - value) > 0.01 * abs(value)) == (drawn < count)


@pytest.mark.slow
def test_a_loss_of_some_strata_is_that_of_all_in_the_mean():
    """A denoiser that returns a place of the label takes the particles there, from any noise."""
    count, drawn, n = 5, 2, 3
    rng = np.random.default_rng(1)
    places = jnp.asarray(3.0 * rng.normal(size=(count + 1, 2)), jnp.float32)
    fixed = from_function(
        lambda params, x, t, c: params[c] + 0.0 * x, schedule=FLOW, kind="x0", null=count
    )
    x0 = jnp.asarray(rng.normal(size=(count, n, 2)), jnp.float32)
    c = members(jnp.arange(count), n)
    settings = {"num_particles": 2, "num_targets": n, "marginal_weight": 0.7, **GRID}
    some = Trajectory(conditions_per_step=drawn, num_strata=count, **settings)
    weights = jnp.linspace(0.2, 1.0, count)

    @functools.partial(jax.jit, static_argnums=0)
    @functools.partial(jax.value_and_grad, argnums=1)
    def loss(objective, weights, strata):
        batch = Batch(x0[strata], c[strata])
        return objective(jax.random.key(0), per_class(weights), fixed, places, batch)[0]

    each = jax.vmap(functools.partial(loss, some, weights))(drawn_sets(count, drawn))
    all_of_them = Trajectory(conditions_per_step=count, **settings)
    value, slope = loss(all_of_them, weights, jnp.arange(count))
    near = 1e-5 * np.abs(places).max()
    np.testing.assert_allclose(np.mean(each[0]), value, rtol=0.0, atol=near)
    near = 1e-4 * np.abs(slope).max()
    np.testing.assert_allclose(np.mean(each[1], axis=0), slope, rtol=0.0, atol=near)
    assert np.abs(slope).min() > 1e-3


@pytest.mark.parametrize(
    ("objective", "batch_size", "groups"),
    [
        (Trajectory(times=(1.0, 0.0), num_particles=3, num_targets=4), 8, 10),
        (
            Trajectory(times=(1.0, 0.0), num_particles=3, num_targets=4, conditions_per_step=3),
            28,
            6,  # two rounds of 3 strata, 4 examples each, are 24 of the 28
        ),
        (objectives.ConditionalMarginalConsistency(group_size=4), 32, 8),
    ],
)
def test_a_step_calls_the_denoiser_as_often_for_any_number_of_strata(objective, batch_size, groups):
    class Called(Exception):
        """With the number of rows of the first call of a training step."""

    def predict(params, x, t, c):
        raise Called(len(x))

    for count in (12, 600):
        labels = np.arange(5 * count) % count
        with pytest.raises(Called) as called:
            learn_guidance(
                jax.random.key(0),
                from_function(predict, schedule=FLOW, kind="x0", null=count),
                (),
                np.ones((len(labels), 2), np.float32),
                labels,
                objective=objective,
                start={"weak": guidance.constant(0.1)},
                trainer=training.Trainer(batch_size=batch_size, progress=False, check=False),
            )
        particles = 3 if isinstance(objective, Trajectory) else objective.group_size
        assert called.value.args[0] in (groups * particles, 2 * groups * particles)


def test_an_objective_is_prepared_for_the_strata_of_its_examples():
    split = labelled(np.zeros((30, 2), np.float32), np.arange(30, dtype=np.int32) % 15)
    prepared, same = Trajectory(**GRID).prepared(split, 1)
    assert prepared == Trajectory(num_strata=15, **GRID)
    assert same is split
    assert Trajectory(**GRID).prepared(split._replace(stratum=None), 1)[0].num_strata == 1
    one = Trajectory(conditions_per_step=1, **GRID)
    with pytest.raises(ValueError, match=r"expected at least 2 of the 15 strata .*, got 1; or set"):
        one.prepared(split, 1)
    assert dataclasses.replace(one, marginal_weight=0.0).prepared(split, 1)
    assert one.prepared(split._replace(stratum=None), 1)


@pytest.mark.parametrize(("groups", "drawn", "count"), [(5, 2, 9), (3, 1, 9), (4, 4, 3)])
def test_the_pooled_distance_refuses_groups_of_other_draws(groups, drawn, count):
    x = jnp.zeros((groups, 2, 1))
    with pytest.raises(ValueError, match=f"expected .* of 2 to {count} strata, got {groups} "):
        pooled_distance(x, x, drawn=drawn, num_strata=count)


def test_trajectory_compares_in_the_space_of_features():
    denoiser, params = mixture(FLOW)
    x0 = jax.random.normal(jax.random.key(0), (2, 4, 3))
    c = members(jnp.asarray([0, 1]), 4)
    settings = {"times": (1.0, 0.5, 0.2), "num_particles": 4, "num_targets": 4}

    def loss_with(features):
        def loss(x0):
            objective, batch = Trajectory(features=features, **settings), Batch(x0, c)
            return objective(jax.random.key(1), constant(0.5), denoiser, params, batch)[0]

        return jax.jit(loss)

    plain, first_two = loss_with(None), loss_with(lambda x: x[:, :2])
    moved = x0.at[:, :, 2].add(5.0)
    assert first_two(moved) == first_two(x0)
    assert plain(moved) > plain(x0) + 1.0


def test_trajectory_takes_features_of_real_examples_as_they_are():
    denoiser, params = mixture(FLOW)
    x0 = jax.random.normal(jax.random.key(0), (2, 4, 3))
    c = members(jnp.asarray([0, 1]), 4)

    def phi(x):
        return jnp.square(x[:, :2])

    plain = Trajectory(times=(1.0, 0.5, 0.0), num_particles=4, num_targets=4, features=phi)
    given = dataclasses.replace(plain, example_shape=(3,))
    losses = [
        jax.jit(
            lambda x, each=objective: each(
                jax.random.key(1), constant(0.5), denoiser, params, Batch(x, c)
            )
        )(real)[0]
        for objective, real in ((plain, x0), (given, jnp.square(x0[..., :2])))
    ]
    np.testing.assert_allclose(*losses, rtol=0.0, atol=1e-6 * np.square(x0).max())


@pytest.mark.parametrize(
    "settings",
    [{"features": None}, {"start": "data"}, {"times": (1.0, 0.2)}],
)
def test_features_of_real_examples_are_not_enough_for_other_trajectories(settings):
    plain = {"times": (1.0, 0.0), "features": jnp.square} | settings
    assert not Trajectory(**plain).takes_features
    with pytest.raises(ValueError, match="expected no example_shape without features"):
        Trajectory(example_shape=(3,), **plain)


def test_descending_the_loss_raises_the_reward():
    objective = Trajectory(
        times=(1.0, 0.6, 0.2, 0.0),
        num_particles=2,
        num_targets=4,
        marginal_weight=0.0,
        reward=lambda x0, c: jnp.sum(x0, axis=-1) * (1.0 - 3.0 * c),
        reward_weight=50.0,
    )
    denoiser, params = mixture(FLOW)
    c = members(jnp.asarray([0, 1, 1, 0]), 4)
    batch = Batch(jax.random.normal(jax.random.key(0), (4, 4, 3)), c)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(values):
        return objective(jax.random.key(1), per_class(values), denoiser, params, batch)

    values = jnp.asarray([0.5, 0.5])
    (before, info), gradient = loss(values)
    near = 1e-6 * (np.abs(info["distance"]) + 50.0 * np.abs(info["reward"]))
    expected = info["distance"] - 50.0 * info["reward"]
    np.testing.assert_allclose(before, expected, rtol=0.0, atol=near)
    after = loss(values - 1e-3 * gradient)[0][1]
    assert after["reward"] > info["reward"] + 1e-3


GRID = {"times": (1.0, 0.5, 0.0)}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Trajectory(num_targets=1, **GRID), "expected at least 2 particles, got 1"),
        (lambda: Trajectory(churn=-0.5, **GRID), r"expected churn in \[0, 1\], got -0.5"),
        (
            lambda: Trajectory(more_times=((0.9, 0.0),), **GRID),
            r"expected grids from 1.0 to 0.0, got \(\(0.9, 0.0\),\)",
        ),
        (lambda: Trajectory(marginal_weight=-1.0, **GRID), "expected marginal_weight >= 0, got -1"),
        (lambda: Trajectory(conditions_per_step=0, **GRID), "conditions_per_step >= 1, got 0"),
    ],
)
def test_trajectories_refuse_settings_outside_their_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(("start", "expected"), [("noise", 5), ("data", 8)])
def test_trajectory_refuses_groups_of_another_size(start, expected):
    objective = Trajectory(start=start, num_particles=3, num_targets=5, **GRID)
    assert objective.group_size == expected
    batch = Batch(jnp.zeros((2, 6, 3)), jnp.zeros((2, 6), jnp.int32))
    with pytest.raises(ValueError, match=f"expected groups of {expected}, got 6"):
        objective(jax.random.key(0), constant(0.0), *mixture(FLOW), batch)
