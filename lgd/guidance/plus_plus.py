"""CFG++ (Chung et al., 2024, arXiv 2406.08070): as a weight of (s, t), and as a rule."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from lgd.diffusion import denoise_pair, from_x0
from lgd.guidance.hand_made import HandMade, check_finite, check_schedule_value
from lgd.guidance.rules import rule
from lgd.guidance.times import log_noise_ratio
from lgd.machinery import arguments
from lgd.types import Condition, Denoiser, Params, Prediction, Rule, Scalar, Schedule, Step

_SMALLEST_STEP = 1e-6  # of 1 - r


def cfg_plus_plus(lam: float, churn: float = 0.0, *, schedule: Schedule) -> HandMade:
    """``omega = lam / (1 - k r) - 1``, the weight with which `Cfg` is CFG++, for every solver.

    r is the noise over the signal at s over that at t, 0 at the last step, and
    ``k = churn^2 r + 1 - churn^2`` that of the kernel (arXiv 2406.08070; the paper has churn 0 and
    lam 0.3 to 0.7). A fixed lam is no fixed strength: half the step, nearly twice the weight; the
    last step has ``omega = lam - 1``. lam = 0: unconditional. Raises ValueError unless churn is in
    [0, 1].

    >>> import lgd
    >>> weight = lgd.guidance.cfg_plus_plus(0.6, schedule=lgd.schedules.rectified_flow())
    >>> times = lgd.schedules.uniform_times(4)
    >>> [round(float(omega), 3) for omega in lgd.guidance.on_grid(weight, times, times[:1])[:, 0]]
    [-0.4, -0.1, -0.1, -0.4]
    """
    check_finite(lam=lam)
    arguments.finite("churn", churn, low=0.0, high=1.0)
    check_schedule_value(schedule)

    def formula(s: Array, t: Array, c: Condition) -> Array:
        log_r = log_noise_ratio(s, t, schedule)
        gone = jnp.maximum(-jnp.expm1(log_r), _SMALLEST_STEP) * (1.0 + churn**2 * jnp.exp(log_r))
        return (lam / gone - 1.0).astype(t.dtype)

    values = (("lam", lam), *churn_value(churn), ("schedule", schedule))
    return HandMade("cfg_plus_plus", values, formula)


def churn_value(churn: float) -> tuple[tuple[str, float], ...]:
    """The churn among the values of a schedule; 0 goes without saying."""
    return () if churn == 0.0 else (("churn", churn),)


@rule
class CfgPlusPlus:
    """``x0_hat = uncond + lam (cond - uncond)``, where noise is put back by the eps of uncond.

    Of DDIM steps of any churn (arXiv 2406.08070, Alg. 2); other solvers refuse an eps of its own,
    and take the weight `cfg_plus_plus`, which is the same under DDIM. lam = 0: unconditional. The
    paper has lam in [0, 1].
    """

    lam: Scalar

    def __post_init__(self) -> None:
        """Raise ValueError unless lam is a finite number."""
        arguments.finite("lam", self.lam)

    def calls(self, num_directions: int) -> int:
        """Two network rows for each sample and call."""
        return 2

    def prepare(
        self, denoiser: Denoiser, times: Float[Array, " n"], c: Condition
    ) -> tuple[Rule, None]:
        """The rule as it is."""
        return self, None

    def init(self, x: Float[Array, "b *dims"], c: Condition) -> None:
        """No state."""

    def apply(
        self,
        denoiser: Denoiser,
        params: Params,
        state: None,
        x_t: Float[Array, "b *dims"],
        *,
        step: Step,
        t: Float[Array, " b"],
        c: Condition,
    ) -> tuple[Prediction, None]:
        """The guided prediction at x_t, with the eps of uncond."""
        cond, uncond = denoise_pair(denoiser, params, x_t, t=t, c=c)
        eps = from_x0(uncond, x_t, t=t, schedule=denoiser.schedule, kind="eps")
        lam = jnp.asarray(self.lam, x_t.dtype)
        return Prediction(uncond + lam * (cond - uncond), eps), None
