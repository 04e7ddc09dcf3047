"""What cannot be right is refused in words; what can be meant in one way alone is taken."""

import json
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lgd
from lgd import guidance, omega
from tests.wrong_calls import CALLS, DENOISER, FLOW, FOREIGN, LEARNED, TABLE, VALUES, sample, unroll

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def errors():
    """The errors of all calls in a process of their own, as users meet them."""
    command = [sys.executable, "-m", "tests.wrong_calls"]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    return json.loads(ran.stdout)


@pytest.mark.parametrize("number", range(len(CALLS)))
def test_a_wrong_call_is_refused_in_few_words_that_name_the_argument(errors, number):
    kind, message = errors[number]
    assert kind == "ValueError", message
    assert re.search(CALLS[number][0], message), message
    assert "expected" in message
    assert "got" in message
    assert len(message) < 500


@pytest.mark.parametrize(
    "given",
    [
        1, np.float32(1.0), np.int64(1), jnp.asarray(1.0), np.asarray(1), jnp.ones((1,)),
        jnp.ones(2), jnp.ones(3), jnp.ones((2, 1)), jnp.ones((1, 3)), np.ones((2, 3), np.int64),
        jnp.ones((2, 3), jnp.bfloat16), guidance.Cfg(1), guidance.Clipped(1, -100, 100),
    ],
)  # fmt: skip
def test_weights_of_every_form_are_those_of_the_number(given):
    np.testing.assert_array_equal(sample(guidance=given), sample())


def test_weights_of_steps_and_of_samples_are_told_apart_by_their_length():
    each = jnp.asarray([0.0, 2.0])
    of_steps = sample(guidance=jnp.broadcast_to(each[:, None], (2, 3)))
    np.testing.assert_array_equal(sample(guidance=each), of_steps)
    each = jnp.asarray([0.0, 2.0, 1.0])
    of_samples = sample(guidance=jnp.broadcast_to(each, (2, 3)))
    np.testing.assert_array_equal(sample(guidance=each), of_samples)
    np.testing.assert_array_equal(sample(guidance=each[None], num_steps=3).shape, (3, 2))


def test_keys_and_conditions_of_both_forms_give_the_same_samples():
    np.testing.assert_array_equal(sample(key=jax.random.PRNGKey(0)), sample())
    np.testing.assert_array_equal(sample(c=[0, 1, 1], shape=(2,)), sample())


def test_weights_made_for_the_schedule_of_the_denoiser_are_taken():
    """The schedule is compared by its logsnr, and the weights alone fit any."""
    same = omega.Guidance(TABLE, VALUES, "constant(1)", Scaled())
    expected = sample(guidance=LEARNED)
    np.testing.assert_array_equal(sample(guidance=same), expected)
    np.testing.assert_array_equal(sample(guidance=FOREIGN.omega_fn), expected)
    jitted = jax.jit(lambda x_t: unroll(x_t=x_t, guidance=same))
    assert jitted(jnp.ones((3, 2))).shape == (3, 2)
    with pytest.raises(ValueError, match="guidance: expected weights made for"):
        jax.jit(lambda x_t: unroll(x_t=x_t, guidance=FOREIGN))(jnp.ones((3, 2)))


def test_learning_starts_from_no_guidance_for_another_schedule():
    x0, c = np.zeros((8, 2), np.float32), np.arange(8) % 2
    for start in (FOREIGN, {"foreign": FOREIGN}):
        with pytest.raises(ValueError, match="start: expected weights made for"):
            lgd.learn_guidance(jax.random.key(0), DENOISER, 0.5, x0, c, start=start)


class Scaled:
    """Rectified flow of data and noise at twice their scale, as an object of one's own."""

    def alpha(self, t):
        return 2.0 * (1.0 - t)

    def sigma(self, t):
        return 2.0 * t

    def logsnr(self, t):
        return FLOW.logsnr(t)

    def t_from_logsnr(self, logsnr):
        return FLOW.t_from_logsnr(logsnr)


def test_a_weight_that_depends_on_no_condition_is_asked_without_one():
    shared = omega.Guidance(
        omega.StepTable(times=(1.0, 0.5, 0.0)), {"values": jnp.asarray([[0.0, 2.0]])}, ""
    )
    assert float(shared(0.75)) == 1.0
    assert float(LEARNED(0.75, c=1)) == 1.75


def test_weights_of_two_directions_are_written_with_their_own_convention():
    model = omega.repeated(omega.StepTable(times=(1.0, 0.0)), 2)
    both = omega.Guidance(model, ({"values": jnp.full((1, 1), 0.5)},) * 2, "")
    written = json.loads(both.to_json([1.0, 0.0], [0]))
    assert written["steps"][0]["omega"] == [[0.5, 0.5]]
    assert "cfg_scale" not in written["steps"][0]
    assert "weaker" in written["convention"]
    one = json.loads(LEARNED.to_json([1.0, 0.0], [0]))
    assert one["convention"] == omega.CONVENTION
    assert one["steps"][0]["cfg_scale"] == [1.5]
