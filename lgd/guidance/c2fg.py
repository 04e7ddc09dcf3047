"""C2FG (arXiv 2603.08155): a scale that grows exponentially."""

import jax.numpy as jnp
from jaxtyping import Array

from lgd.guidance.hand_made import HandMade, check_finite
from lgd.types import Condition


def exponential(cfg_scale: float, rate: float) -> HandMade:
    """``omega = cfg_scale exp(rate (1 - t)) - 1`` (C2FG, arXiv 2603.08155, as reviews state it).

    From cfg_scale at t = 1. cfg_scale = 1 and rate = 0: no guidance. Its authors take a rate near
    log 2, 0.2 for Stable Diffusion, and 0.05 with scale 1.7 for autoguidance.
    """
    check_finite(cfg_scale=cfg_scale, rate=rate)

    def formula(s: Array, t: Array, c: Condition) -> Array:
        return cfg_scale * jnp.exp(rate * (1.0 - t)) - 1.0

    return HandMade("exponential", (("cfg_scale", cfg_scale), ("rate", rate)), formula)
