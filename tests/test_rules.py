"""One matrix over all guidance rules. A new rule is a row of `RULES`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgd import guidance, omega, sampling, schedules
from lgd.denoisers import Directions, GaussianMixture, from_function
from lgd.diffusion import denoise_pair
from lgd.guidance.rules import combine, partition, skipping_of
from lgd.types import Rule
from tests.rule_cases import RULES, Momentum, Row, clipped, learned
from tests.rule_toys import (
    CLASSES,
    DENOISERS,
    EMBEDDING,
    FLOW,
    FOLDED,
    PLAIN,
    START,
    TIMES,
    TRACES,
    draw,
    network,
)

pytestmark = pytest.mark.usefixtures("quick_compilation")
each_rule = pytest.mark.parametrize("name", RULES)
each_solver = pytest.mark.parametrize("solver", sampling.SOLVERS)


def prepared(row, strength, *, solver="ddim", c=CLASSES):
    """The rule as a walk takes it, and the inputs of all steps."""
    rule, inputs = guidance.as_rule(row.make(strength)).prepare(
        DENOISERS[row.denoiser][0], TIMES, c
    )
    if row.skip:
        calls = sampling.SOLVERS[solver].calls(len(TIMES) - 1)
        rule, inputs, _ = skipping_of(rule, inputs, calls)
    return rule, inputs


def loop(row, strength, x, *, solver="ddim", c=CLASSES):
    """The states of a walk, by a Python loop."""
    rule, inputs = prepared(row, strength, solver=solver, c=c)
    walk = sampling.Walk(*DENOISERS[row.denoiser], rule, sampling.SOLVERS[solver], c)
    every, states = sampling.steps(jax.random.key(0), TIMES, None, inputs), [walk.init(x)]
    for i in range(len(TIMES) - 1):
        states.append(walk.step(states[-1], jax.tree.map(lambda leaf, i=i: leaf[i], every)))
    return states


def shapes(tree):
    return jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.asarray(leaf).dtype), tree)


@pytest.mark.sampled(36, 7)
@each_rule
def test_predictions_have_the_shape_of_x_and_a_state_keeps_its_own(name):
    row = RULES[name]
    rule, inputs = prepared(row, 0.7)
    assert isinstance(guidance.as_rule(row.make(0.7)), Rule)
    assert isinstance(rule, Rule)
    assert {leaf.shape[0] for leaf in jax.tree.leaves(inputs)} <= {len(TIMES) - 1}
    step = jax.tree.map(lambda leaf: leaf[1], sampling.steps(jax.random.key(0), TIMES, 0.5, inputs))
    state, (denoiser, params) = rule.init(START, CLASSES), DENOISERS[row.denoiser]
    t = jnp.full(5, step.t)
    prediction, after = rule.apply(denoiser, params, state, START, step=step, t=t, c=CLASSES)
    assert {shapes(leaf) for leaf in jax.tree.leaves(prediction)} == {shapes(START)}
    assert shapes(after) == shapes(state)


@pytest.mark.sampled(3)
@each_rule
def test_a_rule_is_a_tree_whose_floats_and_arrays_can_be_taken_out(name):
    rule = prepared(RULES[name], 0.7)[0]
    dynamic, static = partition(rule)
    assert hash(static) == hash(partition(prepared(RULES[name], 1.3)[0])[1])
    again = combine([2.0 * leaf for leaf in dynamic], static)
    assert jax.tree.structure(again) == jax.tree.structure(rule)
    for one, twice in zip(dynamic, partition(again)[0], strict=True):
        np.testing.assert_array_equal(2.0 * one, twice)


@pytest.mark.sampled(36, 7)
@each_rule
def test_one_compilation_serves_all_strengths(name):
    row = RULES[name]
    first = draw(row.make(0.7), row.denoiser, skip=row.skip).x0
    before = len(TRACES)
    second = draw(row.make(1.3), row.denoiser, skip=row.skip).x0
    assert 0 < before == len(TRACES)
    assert np.abs(first - second).max() > 1e-3


@pytest.mark.sampled(40, 7)
@each_rule
@each_solver
def test_strength_0_guides_nothing(name, solver):
    row = RULES[name]
    if solver in row.refused_by:
        with pytest.raises(ValueError, match="expected a rule without an eps of its own for"):
            draw(row.make(0.0), row.denoiser, solver=solver, skip=row.skip)
        return
    found = draw(row.make(0.0), row.denoiser, solver=solver, skip=row.skip)
    expected = draw(row.around(guidance.Cfg(0.3)), row.neutral, solver=solver)
    if row.exact:  # but for the order in which XLA multiplies and adds in the steps of EDM
        atol = 1e-6 if solver == "heun_edm" else 0.0
        np.testing.assert_allclose(found.trajectory, expected.trajectory, rtol=0.0, atol=atol)
    np.testing.assert_allclose(found.x0, expected.x0, rtol=1e-5, atol=1e-5)
    guided = draw(row.make(0.7), row.denoiser, solver=solver, skip=row.skip).x0
    assert np.abs(guided - found.x0).max() > 1e-3


@pytest.mark.sampled(40, 7)
@each_rule
@each_solver
def test_a_python_loop_of_steps_equals_the_scan(name, solver):
    row = RULES[name]
    if solver in row.refused_by:
        return
    samples = draw(row.make(0.7), row.denoiser, solver=solver, skip=row.skip)
    states = loop(row, 0.7, samples.trajectory[0], solver=solver)
    xs = np.stack([state.x for state in states])
    assert np.isfinite(xs).all()
    np.testing.assert_allclose(xs, samples.trajectory, rtol=1e-5, atol=1e-5)
    calls = sampling.SOLVERS[solver].calls(len(TIMES) - 1).sum()
    assert samples.nfe < 2 * calls if row.skip else samples.nfe == row.rows * calls


@pytest.mark.sampled(36, 7)
@each_rule
def test_a_batch_equals_its_singles(name):
    if name == "weights":  # which are of a batch
        return
    together = loop(RULES[name], 0.7, START)[-1].x
    for i in (0, 2):
        alone = loop(RULES[name], 0.7, START[i : i + 1], c=CLASSES[i : i + 1])[-1].x
        np.testing.assert_allclose(alone[0], together[i], rtol=1e-5, atol=1e-5)


@pytest.mark.sampled(36, 7)
@each_rule
def test_data_may_have_any_axes(name):
    """A rule sees the entries of a sample, not how they lie."""
    row = RULES[name]
    if row.skip or row.denoiser != "plain" or row.knows_shape:
        return
    walk = {"guidance": row.make(0.7), "times": TIMES}
    flat, folded = (
        sampling.unroll(jax.random.key(0), denoiser, EMBEDDING, CLASSES, x, **walk)
        for denoiser, x in ((PLAIN, START), (FOLDED, START.reshape(5, 1, 2, 1)))
    )
    assert folded.shape == (5, 1, 2, 1)
    np.testing.assert_allclose(folded.reshape(5, 2), flat, rtol=1e-4, atol=1e-5)


@pytest.mark.sampled(36, 7)
@each_rule
def test_gradients_are_finite(name):
    """With respect to the start, the floats of the rule and the parameters of what it holds."""
    row, (denoiser, params) = RULES[name], DENOISERS[RULES[name].denoiser]

    def of_loop(x):
        return jnp.sum(loop(row, 0.7, x)[-1].x ** 2)

    if row.skip:
        assert np.isfinite(jax.grad(of_loop)(START)).all()
        return
    rule = guidance.as_rule(row.make(0.7))
    dynamic, static = partition(rule)

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1))
    def gradients(dynamic, x):
        given = combine(dynamic, static)
        end = sampling.unroll(
            jax.random.key(0), denoiser, params, CLASSES, x, guidance=given, times=TIMES
        )
        return jnp.sum(end**2)

    found = gradients(dynamic, START)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found))
    assert np.abs(found[1]).max() > 0.0


@pytest.mark.sampled(36, 7)
@each_rule
def test_gradients_are_finite_where_the_predictions_agree(name):
    row = RULES[name]
    if row.skip or row.denoiser != "plain":
        return

    @jax.jit
    @jax.grad
    def slopes(x):
        key, given = jax.random.key(0), row.make(0.7)
        walk = {"guidance": given, "times": TIMES}
        return jnp.sum(sampling.unroll(key, *DENOISERS["cond"], CLASSES, x, **walk) ** 2)

    found = slopes(START)
    assert np.isfinite(found).all()
    assert np.abs(found).max() > 0.0


@pytest.mark.sampled(30, 7)
@each_rule
@each_solver
def test_a_denoiser_in_bfloat16_is_guided_in_float32(name, solver):
    """Nothing is promoted unseen: JAX is told to promote no dtypes."""
    row = RULES[name]
    if solver in row.refused_by:
        return
    low = {"plain": "low", "several": "several, low"}[row.denoiser]
    with jax.numpy_dtype_promotion("strict"):
        found = draw(row.make(0.7), low, solver=solver, skip=row.skip).x0
    assert found.dtype == jnp.float32
    assert np.isfinite(found).all()


# What the rows do not say


@each_solver
def test_a_state_advances_once_a_step(solver):
    """With Heun's method, too, which asks twice: m is that of the first stage."""
    states = loop(Row(make=lambda w: Momentum(w, 1.0)), 0.7, START, solver=solver)
    total = jnp.zeros_like(START)
    for before, after, t in zip(states[:-1], states[1:], TIMES[:-1], strict=True):
        pair = denoise_pair(PLAIN, EMBEDDING, before.x, t=jnp.full(5, t), c=CLASSES)
        total += pair[0] - pair[1]
        np.testing.assert_allclose(after.rule, total, rtol=1e-5, atol=1e-6)


def test_an_eps_of_its_own_puts_the_noise_back():
    """``x_s = alpha_s x0 + sigma_s eps`` at churn 0, with both of them the rule's."""
    states, t, s = loop(RULES["cfg++"], 0.7, START), TIMES[1], TIMES[2]
    x_t = states[1].x
    cond, uncond = denoise_pair(PLAIN, EMBEDDING, x_t, t=jnp.full(5, t), c=CLASSES)
    eps = (x_t - FLOW.alpha(t) * uncond) / FLOW.sigma(t)
    expected = FLOW.alpha(s) * (uncond + 0.7 * (cond - uncond)) + FLOW.sigma(s) * eps
    np.testing.assert_allclose(states[2].x, expected, rtol=1e-5, atol=1e-6)


def test_the_learned_network_looks_at_the_features():
    times = {"s": jnp.full(5, 0.2), "t": jnp.full(5, 0.4), "c": CLASSES}
    each = [learned(0.7)(**times, features=jnp.full((5, 4), value)) for value in (0.0, 1.0)]
    assert np.abs(each[0] - each[1]).min() > 1e-4


@pytest.mark.parametrize("solver", ["ddim", "heun"])
def test_clipped_samples_lie_in_the_range(solver):
    x0 = draw(clipped(5.0), "plain", solver=solver).x0
    assert x0.min() == np.float32(-0.8)
    assert x0.max() == np.float32(0.9)


def test_a_dynamic_threshold_is_the_papers_formula():
    """Saharia et al. (2022), App. C: clip to a quantile s >= 1 of |x0|, and divide by it."""
    x0 = np.random.default_rng(0).normal(size=(6, 3, 4)).astype(np.float32)
    x0[0] *= 0.1
    found = guidance.DynamicThreshold(0.0, quantile=0.75).limited(jnp.asarray(x0))
    reach = np.maximum(np.quantile(np.abs(x0).reshape(6, -1), 0.75, axis=1), 1.0)[:, None, None]
    np.testing.assert_allclose(found, np.clip(x0, -reach, reach) / reach, rtol=1e-5)
    np.testing.assert_array_equal(found[0], x0[0])


@pytest.mark.parametrize("around", [lambda rule: rule, guidance.Cfg, clipped])
@pytest.mark.parametrize("of_features", [False, True])
def test_guidance_with_its_history_is_its_omega_function(around, of_features):
    bound = learned(0.7)
    if not of_features:
        table = omega.StepTable(times=tuple(TIMES.tolist()))
        bound = omega.bind(table, {"values": jnp.asarray([[0.1, 0.4, 0.2, 0.9]])})
    told = omega.Guidance(bound.model, bound.params, "constant(1)")
    found, expected = (draw(around(given), "plain").x0 for given in (told, bound))
    np.testing.assert_array_equal(found, expected)


def test_directions_are_weighed_apart():
    """``cond + w (cond - uncond) + v (cond - weaker)``, by hand at the last step."""
    row = Row(make=lambda w: guidance.constant_directions(w, 2.0 * w), denoiser="several")
    states, t = loop(row, 0.7, START), jnp.full(5, TIMES[-2])
    cond, uncond = denoise_pair(PLAIN, EMBEDDING, states[-2].x, t=t, c=CLASSES)
    weaker = PLAIN.apply(0.5 * EMBEDDING, states[-2].x, t=t, c=CLASSES)
    expected = cond + 0.7 * (cond - uncond) + 1.4 * (cond - weaker)
    np.testing.assert_allclose(states[-1].x, expected, rtol=1e-5, atol=1e-6)


def test_a_rule_acts_in_the_space_of_the_network_unless_it_is_told_another():
    times = schedules.uniform_times(4, start=0.9)
    noise = from_function(network, schedule=FLOW, kind="eps", null=2)
    both = Directions(noise, {"weaker": noise})
    for denoiser, kind in ((PLAIN, "x0"), (noise, "eps"), (both, "eps")):
        assert guidance.Tcfg(1.0).prepare(denoiser, times, CLASSES)[0].kind == kind
        assert guidance.Tcfg(1.0, kind="v").prepare(denoiser, times, CLASSES)[0].kind == "v"
    mixture = GaussianMixture((0, 1), FLOW)
    assert guidance.Raag(1.0).prepare(mixture, times, CLASSES)[0].kind == "x0"


@pytest.mark.parametrize("given", ["strong", [0.5], {"w": 1.0}, object()])
def test_what_is_no_guidance_is_refused(given):
    with pytest.raises(ValueError, match="expected guidance, one of a rule"):
        guidance.as_rule(given)


def test_rules_can_be_stacked_and_mapped_over():
    """Trees of rules, as `jax.vmap` and `jax.tree` make them, hold values of any type."""
    rules = [guidance.Clipped(guidance.Cfg(None), low, 1.0) for low in (-0.5, -0.1)]
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *rules)
    x0 = jnp.linspace(-1.0, 1.0, 6).reshape(3, 2)
    found = jax.vmap(lambda rule: rule.limited(x0))(together)
    for one, rule in zip(found, rules, strict=True):
        np.testing.assert_array_equal(one, rule.limited(x0))
    assert jax.tree.map(lambda _: "any", rules[0]).low == "any"


@each_rule
def test_what_the_paper_says_of_a_rule_holds(name):
    RULES[name].known_answer()
