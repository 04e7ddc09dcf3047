"""Redrawn losses of statistics against particles in law, by `lgd.gram.law`.

5,120 redraws of the fresh noise of 16 examples are compared with as many draws of it in R^d, on the
particles themselves: means and variances of losses and of gradients in omega. A comparison fails
beyond `LIMIT` standard errors, which happens by chance once in 1,000 runs of all. That the draws
suffice is asserted beside it: a relative error of 3% in mean losses, of 5% in mean gradients, or of
15% in the variance of either would lie at least `LIMIT` + 2.33 standard errors away, and so be
found with a power above .99.
"""

import numpy as np
import pytest

from lgd.gram import law

DRAWS = 128  # in each of 40 batches
LIMIT = 4.5
SEEN = {"loss": 0.03, "gradient": 0.05, "variance of loss": 0.15, "variance of gradient": 0.15}


pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("dim", "members", "num_directions"),
    [
        pytest.param(2, "copies", 2, marks=pytest.mark.hour),
        pytest.param(7, "condition", 1, marks=pytest.mark.hour),
        (14, "copies", 1),
        (64, "mixed", 2),
    ],
)
def test_redrawn_losses_and_gradients_have_the_law_of_those_of_the_particles(
    dim, members, num_directions
):
    """Dimensions below, just above and far above the number of known rows."""
    for name, (gap, error) in law.compared(dim, members, num_directions, batch=DRAWS).items():
        drawn = ~law.NO_NOISE
        assert (np.abs(gap) <= LIMIT * error)[drawn].all(), (name, gap / error)
        assert ((LIMIT + law.POWER_GAP) * error <= SEEN[name])[drawn].all(), (name, error)
        if "variance" not in name:
            np.testing.assert_allclose(gap[law.NO_NOISE], 0.0, atol=1e-4)


@pytest.mark.parametrize(("dim", "num_directions"), [(2, 2), (14, 1)])
def test_a_degree_of_freedom_too_many_is_detected(dim, num_directions):
    gap, error = law.compared(dim, "copies", num_directions, batch=DRAWS, claimed_dim=dim + 1)[
        "loss"
    ]
    assert (np.abs(gap) > LIMIT * error)[~law.NO_NOISE].any()
