"""How far guidance can move a reward, on the exact mixture."""

import numpy as np
import pytest

from lgd import guidance, rewards, schedules
from lgd.data import spiral
from lgd.evaluation import Generator, slopes, strata_rewards

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def spiral_generator():
    denoiser, params = spiral.mixture(schedules.rectified_flow())
    times = schedules.uniform_times(4)
    return Generator(
        denoiser=denoiser, params=params, shape=(2,), conditions=np.arange(8), times=times
    )


def test_slopes_are_derivatives_of_the_sampled_reward(spiral_generator):
    """Against central differences in a constant omega, with the same noise."""
    reward = rewards.Tanh((1.0, 0.0), 0.5)
    data = spiral.load(16, 16, 800, schedule=spiral_generator.denoiser.schedule)
    found = slopes(spiral_generator, data.test, reward, 50, seed=3)
    mean = strata_rewards(reward, spiral_generator.conditions)
    ends = [mean(spiral_generator(guidance.constant(w), 50, seed=3)) for w in (-0.01, 0.01)]
    expected = (np.asarray(ends[1]) - np.asarray(ends[0])) / 0.02
    assert found.trajectory.shape == found.one_step.shape == (8, 4)
    np.testing.assert_allclose(found.trajectory.sum(axis=1), expected, rtol=0.02, atol=2e-3)
    first = found.one_step[:, 0]  # at t = 1 cond and uncond are means, of the class and of all
    centres = spiral_generator.params.means.reshape(8, 4, 2).mean(axis=1)
    gap = np.asarray(centres[:, 0] - centres[:, 0].mean())
    np.testing.assert_allclose(first, gap / 0.5 / np.cosh(centres[:, 0] / 0.5) ** 2, atol=1e-4)
