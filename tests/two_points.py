"""Two point-mass classes at -1 and 1 with exact denoisers: optima by quadrature."""

import numpy as np
from scipy.integrate import quad
from scipy.stats import norm


def l2_optimum(s, t, *, churn, coupling="independent"):
    """The constant that minimises the l2 objective for x0 = 1, by rectified flow.

    There r = 0 and Delta = 1 - tanh(alpha x_t / sigma^2) at x_t = alpha + sigma eps, and the loss
    is a parabola in omega.
    """

    def mean(function):  # over eps
        return quad(
            lambda eps: (
                function(1 - np.tanh((1 - t) * (1 - t + t * eps) / t**2), eps) * norm.pdf(eps)
            ),
            -9,
            9,
        )[0]

    k = churn**2 * (1 - t) * s / ((1 - s) * t) + 1 - churn**2
    a = (1 - s) - s / t * k * (1 - t)
    slope = -s / a * mean(lambda delta, eps: delta * eps) / mean(lambda delta, eps: delta**2)
    return slope * (k - 1.0 if coupling == "shared" else k)
