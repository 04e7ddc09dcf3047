"""A probe of a model and data that a user brings: what is wrong, in words."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from lgd import conditions
from lgd.checks import pairs, rewards
from lgd.checks.probes import Probe, asking, halves, kind_of, probe_of
from lgd.checks.readings import Reading, explanation
from lgd.checks.report import Finding, Findings, Report
from lgd.data.dataset import FileImages, Split, checked_split
from lgd.diffusion import checked_denoiser
from lgd.machinery.words import described, one_line
from lgd.types import Condition, Denoiser, Params, RewardFn

NUM_EXAMPLES = 64
WORSE = 2.5  # a score that no network has that has learned something
CERTAIN = (2.0, 0.33)  # scores of a reading that is wrong, and of the right one relative to it
EXACT = 0.01  # the score of a model that may ignore x_t and t


def check(
    denoiser: Denoiser,
    params: Params,
    x0: np.ndarray | Array | FileImages,
    c: Any,
    *,
    reward: RewardFn | None = None,
    reward_weight: float | None = None,
    num_examples: int = NUM_EXAMPLES,
) -> Report:
    """Look for what is wrong with a model and data before anything is learned from them.

    Asks the model about a few examples with noise. It notices a time that runs back, timesteps in
    place of t, another kind, noise schedule or range of data than was declared, labels from 1, a
    null that does nothing or is one of the conditions, NaN, inputs that are ignored, outputs that
    depend on the rest of a batch, and a reward without values, a gradient or a weight. A model that
    has learned little is not taken for a wrong one.

    Args:
      denoiser: the frozen model.
      params: arrays of the denoiser.
      x0: real examples (n, *dims), of which ``num_examples`` are used.
      c: their conditions, leaves (n, ...).
      reward: R(x0, c) -> (b,), if one is to be used.
      reward_weight: its weight, if one is to be used.
      num_examples: how many examples the model is asked about, each at 7 times.

    Returns:
      The findings; print it. ``score`` among what was measured is the squared error of x0_hat
      relative to that of the best linear estimate.

    Raises:
      ValueError: for a denoiser that is none, or examples and conditions that do not fit together.

    >>> import jax.numpy as jnp, numpy as np, lgd
    >>> def velocity(means, x, t, c):  # of data means[c] + z / 10
    ...     alpha, sigma = 1 - t[:, None], t[:, None]
    ...     gain = 0.01 * alpha / (0.01 * alpha**2 + sigma**2)
    ...     x0 = means[c][:, None] + gain * (x - alpha * means[c][:, None])
    ...     return (x - x0) / jnp.maximum(sigma, 1e-3)
    >>> labels = np.arange(64) % 2
    >>> x0 = np.where(labels == 0, 1.0, -1.0)[:, None] + np.random.default_rng(0).normal(
    ...     size=(64, 1)) / 10
    >>> for kind in ("velocity", "eps"):
    ...     denoiser = lgd.denoisers.from_function(
    ...         velocity, kind=kind, null=2, schedule=lgd.schedules.rectified_flow())
    ...     report = lgd.check(denoiser, jnp.array([1.0, -1.0, 0.0]), x0, labels)
    ...     print(report.ok, [finding.subject for finding in report.findings])
    True []
    False ['kind']
    """
    checked_denoiser(denoiser)
    split = checked_split(x0, c, None if conditions.labels_of(c) is None else np.zeros(len(x0), int))
    return checked(denoiser, params, split, reward, reward_weight, num_examples)
