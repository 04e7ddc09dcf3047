"""The check of a model and data: silent on right models, and the right word for each mistake."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lgd
from lgd import denoisers, diffusion, rewards, schedules
from lgd.denoisers import GaussianMixture, from_function

NUM_CLASSES, DIM, STD = 4, 2, 0.4
MEANS = np.random.default_rng(0).normal(size=(NUM_CLASSES, DIM)).astype(np.float32)
LABELS = np.arange(64, dtype=np.int32) % NUM_CLASSES
X0 = MEANS[LABELS] + STD * np.random.default_rng(1).normal(size=(64, DIM)).astype(np.float32)

COMBINATIONS = [(name, kind) for name in schedules.BY_NAME for kind in diffusion.KINDS]
SOME = [("rectified_flow", "velocity"), ("linear_vp", "eps"), ("edm", "x0"), ("cosine", "score")]


def exact(name, kind, *, error=0.0):
    """The posterior mean of the mixture as a function that predicts a kind, and its parameters.

    error: size of a smooth error of the output, relative to the scale of outputs of the kind.
    """
    schedule = schedules.BY_NAME[name]()
    mixture = GaussianMixture(tuple(range(NUM_CLASSES)), schedule)

    def function(params, x, t, c):
        inside = jnp.clip(t, 1e-3, 0.999)
        x0 = mixture.apply(params, x, t=inside, c=c)
        output = diffusion.from_x0(x0, x, t=inside, schedule=schedule, kind=kind)
        scale = denoisers.network.output_scale(inside, schedule=schedule, kind=kind)
        wave = jnp.sin(3.0 * x + 7.0 * t[:, None] + jnp.arange(DIM)[None])
        return output + 2.0**0.5 * error * scale[:, None] * wave

    return function, mixture.params(jnp.asarray(MEANS), STD**2)


def report(name, kind, function, params, x0=X0, c=LABELS, null=NUM_CLASSES, **settings):
    schedule = schedules.BY_NAME[name]()
    denoiser = from_function(function, schedule=schedule, kind=kind, null=null)
    return lgd.check(denoiser, params, x0, c, **settings)


def only(found, subject, *words):
    """The one finding, of this subject, whose message has these words."""
    assert [each.subject for each in found.findings] == [subject], str(found)
    for word in words:
        assert word in found.findings[0].message
    assert len(found.findings[0].message) < 500
    assert str(found.findings[0]) in str(found)
    return found.findings[0]


@pytest.mark.sampled(12)
@pytest.mark.parametrize(("name", "kind"), COMBINATIONS)
@pytest.mark.parametrize("error", [0.0, 0.3])
def test_right_models_are_right_also_with_errors(name, kind, error):
    found = report(name, kind, *exact(name, kind, error=error))
    assert found.ok, str(found)
    assert found.measured["score"] < 1.3


@pytest.mark.sampled(12)
@pytest.mark.parametrize(("name", "kind"), SOME)
def test_another_kind_is_named(name, kind):
    function, params = exact(name, kind)
    for declared in set(diffusion.KINDS) - {kind}:
        found = report(name, declared, function, params)
        if name == "edm" and {kind, declared} == {"eps", "velocity"}:
            continue
        only(found, "kind", f"like kind='{kind}', declared was '{declared}'", f"kind='{kind}'")


@pytest.mark.sampled(12)
@pytest.mark.parametrize(("name", "kind"), SOME)
def test_time_that_runs_back_is_named(name, kind):
    function, params = exact(name, kind)
    sign = -1.0 if kind == "velocity" else 1.0  # of d/dt

    def backwards(params, x, t, c):
        return sign * function(params, x, 1.0 - t, c)

    found = only(
        report(name, kind, backwards, params), "time", "from 0, noise, to 1, data", "1 - t"
    )
    assert ("minus the output" in found.message) == (kind == "velocity")


@pytest.mark.sampled(12)
@pytest.mark.parametrize(("name", "kind"), SOME)
@pytest.mark.parametrize(
    ("convert", "word"),
    [
        (lambda t, schedule: t / 1000.0, "1000 * t"),
        (lambda t, schedule: 1.0 - t / 1000.0, "1000 * (1 - t)"),
    ],
)
def test_other_measures_of_time_are_named(name, kind, convert, word):
    function, params = exact(name, kind)
    schedule = schedules.BY_NAME[name]()
    sign = -1.0 if kind == "velocity" and word == "1000 * (1 - t)" else 1.0

    def measured(params, x, t, c):
        return sign * function(params, x, jnp.clip(convert(t, schedule), 0.0, 1.0), c)

    only(report(name, kind, measured, params), "time", word)


@pytest.mark.parametrize("kind", ["x0", "eps"])
def test_the_noise_level_of_edm_is_named(kind):
    function, params = exact("edm", kind)
    schedule = schedules.edm()

    def network(params, x, t, c):  # which takes log(sigma) / 4
        t = schedule.t_from_logsnr(-2.0 * jnp.clip(4.0 * t, -6.0, 4.0))
        return function(params, x, t, c)

    only(report("edm", kind, network, params), "time", "jnp.log(schedule.sigma(t)) / 4")


@pytest.mark.sampled(12)
@pytest.mark.parametrize(
    ("name", "kind", "declared"),
    [
        ("rectified_flow", "velocity", "edm"),
        ("linear_vp", "eps", "edm"),
        ("cosine", "score", "rectified_flow"),
        ("cosine", "eps", "linear_vp"),
    ],
)
def test_another_schedule_is_named(name, kind, declared):
    only(report(declared, kind, *exact(name, kind)), "schedule", f"lgd.schedules.{name}()")


@pytest.mark.sampled(12)
@pytest.mark.parametrize(("name", "kind"), SOME)
@pytest.mark.parametrize(("scale", "offset"), [(0.5, 0.5), (127.5, 127.5), (5.0, 0.0), (0.2, 1.0)])
def test_another_range_of_data_is_named(name, kind, scale, offset):
    found = report(name, kind, *exact(name, kind), x0=scale * X0 + offset)
    only(found, "data", "as if its data were", "trained on")


def test_labels_from_1_are_named():
    for name, kind in SOME:
        found = report(name, kind, *exact(name, kind), c=LABELS + 1)
        assert [each.subject for each in found.findings] == ["labels", "null"], str(found)
        assert "c-1" in found.findings[0].message


@pytest.mark.sampled(12)
@pytest.mark.parametrize(("name", "kind"), SOME)
def test_a_null_that_is_a_class_is_named(name, kind):
    function, params = exact(name, kind)
    only(report(name, kind, function, params, null=2), "null", "null = 2 is a label of the data")

    def clamped(params, x, t, c):  # as a table of NUM_CLASSES rows does, silently
        return function(params, x, t, jnp.minimum(c, NUM_CLASSES - 1))

    words = f"16 of 64 examples, all of label {NUM_CLASSES - 1}"
    only(report(name, kind, clamped, params), "null", words)


@pytest.mark.sampled(12)
@pytest.mark.parametrize(("name", "kind"), SOME)
def test_conditions_that_do_nothing_are_named(name, kind):
    function, params = exact(name, kind)

    def same(params, x, t, c):
        return function(params, x, t, jnp.full_like(c, NUM_CLASSES))

    found = report(name, kind, same, params)
    assert [each.subject for each in found.findings] == ["null", "inputs"]
    assert "cond equal to uncond for all" in found.findings[0].message
    assert "depend on c" in found.findings[1].message


def test_halves_that_are_not_finite_are_named():
    function, params = exact("rectified_flow", "x0")

    def looked_up(params, x, t, c):
        rows = jnp.take(jnp.ones(NUM_CLASSES), c, mode="fill")  # NaN outside of the table
        return rows[:, None] * function(params, x, t, c)

    words = ("the unconditional half, at every time", "is the unconditional input, 4, within")
    only(report("rectified_flow", "x0", looked_up, params), "finite", *words)

    def late(params, x, t, c):
        return jnp.where(t[:, None] > 0.9, jnp.inf, function(params, x, t, c))

    words = ("the conditional and the unconditional half, at t = 0.98, for 64 of 64 examples",)
    only(report("rectified_flow", "x0", late, params), "finite", *words)


@pytest.mark.parametrize("output", ["sum", "integer", "crash"])
def test_outputs_that_are_none_are_errors(output):
    function, params = exact("rectified_flow", "x0")

    def wrong(params, x, t, c):
        x0 = function(params, x, t, c)
        if output == "crash":
            return params.nothing
        return x0.sum(-1) if output == "sum" else x0.astype(jnp.int32)

    found = only(report("rectified_flow", "x0", wrong, params), "output")
    assert found.level == "error"


def test_outputs_that_ignore_inputs_or_depend_on_the_batch_are_named():
    function, params = exact("rectified_flow", "x0")

    def normalised(params, x, t, c):
        x0 = function(params, x, t, c)
        return (x0 - x0.mean(axis=0)[None]) / x0.std(axis=0)[None]

    def dropped(params, x, t, c):
        keep = jax.random.bernoulli(jax.random.key(0), 0.9, (len(x), 1))
        return function(params, x, t, c) * keep

    def timeless(params, x, t, c):
        return function(params, x, jnp.full_like(t, 0.5), c)

    def blind(params, x, t, c):
        return function(params, jnp.zeros_like(x), t, c)

    for wrong, word in [
        (normalised, "another batch"),
        (dropped, "another batch"),
        (timeless, "depend on t"),
        (blind, "depend on x_t"),
    ]:
        found = report("rectified_flow", "x0", wrong, params)
        assert any(word in each.message for each in found.findings), (word, str(found))
        assert {each.subject for each in found.findings} <= {"inputs", "data"}, str(found)


def test_points_are_predicted_without_looking():
    """Where data are one point a class, the exact model ignores x_t and t."""
    found = report(
        "rectified_flow", "x0", lambda p, x, t, c: p[c] + 0.0 * x,
        jnp.concatenate([jnp.asarray(MEANS), jnp.zeros((1, DIM))]), x0=MEANS[LABELS],
    )  # fmt: skip
    assert found.ok, str(found)


BRIGHT = rewards.Tanh((1.0, 0.0))


@pytest.mark.sampled(12)
@pytest.mark.parametrize(
    ("reward", "weight", "level", "words"),
    [
        (lambda x, c: jnp.mean(x), 1.0, "error", "here (64,), got float32 of shape ()"),
        (lambda x, c: x[:, :1], 1.0, "error", "got float32 of shape (64, 1)"),
        (lambda x, c: jnp.argmax(x, -1), 1.0, "error", "int32 of shape (64,)"),
        (lambda x, c: jnp.sqrt(x[:, 0] - 9.0), 1.0, "error", "64 that are NaN or inf"),
        (lambda x, c: jnp.sqrt(0.0 * x[:, 0]), 1.0, "error", "finite gradients"),
        (lambda x, c: jax.lax.stop_gradient(x[:, 0]), 1.0, "warning", "gradients of 0"),
        (lambda x, c: jnp.argmax(x, -1) + 0.0, 1.0, "warning", "gradients of 0"),
        (lambda x, c: 0.0 * x[:, 0] + 3.0, 1.0, "warning", "gradients of 0"),
        (lambda x: x[:, 0], 1.0, "error", "got TypeError"),
        (rewards.Linear((1.0, 0.0, 0.0)), 1.0, "error", "got ValueError: expected x0 of 3 numbers"),
        (rewards.Linear, 1.0, "error", "got the class Linear"),
        (0.5, 1.0, "error", "a function, got 0.5"),
        (None, 1.0, "error", "expected a reward for reward_weight = 1.0, got none"),
        (BRIGHT, 0.0, "warning", "reward_weight other than 0"),
        (BRIGHT, 1.0, None, None),
        (BRIGHT, None, None, None),
        (None, 0.0, None, None),
    ],
)
def test_rewards(reward, weight, level, words):
    function, params = exact("rectified_flow", "velocity")
    found = report(
        "rectified_flow", "velocity", function, params, reward=reward, reward_weight=weight
    )
    if level is None:
        assert found.ok, str(found)
    else:
        assert only(found, "reward", words).level == level


def test_every_part_of_directions_is_asked():
    function, params = exact("rectified_flow", "velocity")
    flow = schedules.rectified_flow()
    right, wrong = (
        from_function(function, schedule=flow, kind=kind, null=NUM_CLASSES)
        for kind in ("velocity", "x0")
    )
    both = denoisers.Directions(right, {"early": wrong})
    found = lgd.check(both, (params, {"early": params}), X0, LABELS)
    only(found, "early kind", "like kind='velocity', declared was 'x0'")


@pytest.mark.slow
@pytest.mark.parametrize("steps", [0, 30, 300])
def test_networks_that_have_learned_little_are_not_called_wrong(steps):
    schedule = schedules.rectified_flow()
    module = denoisers.ResidualMLP(num_classes=NUM_CLASSES, width=32, depth=2)
    network = denoisers.NetworkDenoiser(module, schedule, NUM_CLASSES, "velocity")
    params = network.init(jax.random.key(0), (DIM,))
    loss = denoisers.DenoisingLoss()

    @jax.jit
    def trained(params):
        def step(params, key):
            draw_key, loss_key = jax.random.split(key)
            index = jax.random.randint(draw_key, (64,), 0, len(X0))
            x0, c = jnp.asarray(X0)[index], jnp.asarray(LABELS)[index]
            gradient = jax.grad(lambda p: loss(loss_key, network, p, x0, c))(params)
            return jax.tree.map(lambda p, g: p - 0.05 * g, params, gradient), None

        return jax.lax.scan(step, params, jax.random.split(jax.random.key(1), steps))[0]

    found = lgd.check(network, trained(params), X0, LABELS)
    wrong = {each.subject for each in found.findings} - {"null", "inputs"}  # of zeros at first
    assert not wrong, str(found)
