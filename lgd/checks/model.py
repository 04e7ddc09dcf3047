"""A probe of a model and data that a user brings: what is wrong, in words."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from lgd import conditions
from lgd.checks import pairs, rewards
from lgd.checks.probes import Probe, asking, halves, kind_of, probe_of
from lgd.checks.readings import Reading, explanation
from lgd.checks.report import Finding, Findings, Level, Report
from lgd.data.dataset import FileImages, Split, checked_split
from lgd.diffusion import Kind, checked_denoiser
from lgd.machinery.arguments import positive_int
from lgd.machinery.words import described, one_line
from lgd.types import Condition, Denoiser, HasParts, MakesPair, Params

NUM_EXAMPLES = 64
FEWEST = 16  # examples by whose errors a model is judged
WORSE = 2.5  # a score that no network has that has learned something
CERTAIN = (2.0, 0.33)  # scores of a reading that is wrong, and of the right one relative to it
EXACT = 0.01  # the score of a model that may ignore x_t and t


def check(
    denoiser: Denoiser,
    params: Params,
    x0: np.ndarray | Array | FileImages,
    c: Any,
    *,
    reward: Any = None,
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
    split = checked_split(x0, c, None)
    count = positive_int("num_examples", num_examples)
    return checked(denoiser, params, split, reward, reward_weight, num_examples=count)


def checked(
    denoiser: Denoiser,
    params: Params,
    split: Split,
    reward: Any,
    reward_weight: float | None,
    *,
    num_examples: int = NUM_EXAMPLES,
) -> Report:
    """`check` of examples that are checked already.

    Args:
      denoiser: the frozen model; all parts of a `denoisers.Directions` are asked.
      params: its arrays.
      split: the examples.
      reward: R(x0, c), or None.
      reward_weight: its weight, or None.
      num_examples: how many examples are used.
    """
    index = np.linspace(0, len(split.x) - 1, min(num_examples, len(split.x))).astype(int)
    x0 = np.asarray(split.x[index], np.float32)
    some = Split(x0, conditions.take(split.c, index))
    findings = rewards.weights(reward, reward_weight)
    if reward is not None:
        findings += rewards.values(reward, *some[:2])
    measured = {"examples": float(len(x0)), "mean": float(x0.mean()), "std": float(x0.std())}
    if not isinstance(denoiser, HasParts):
        more, scores = _of_model(denoiser, params, some, split.c)
        return Report((*findings, *more), measured | scores)
    for name, part, part_params in denoiser.parts(params):
        more, scores = _of_model(part, part_params, some, split.c, may_err=bool(name))
        findings += [replace(each, subject=f"{name} {each.subject}".strip()) for each in more]
        measured |= {f"{name} {key}".strip(): value for key, value in scores.items()}
    return Report(tuple(findings), measured)


def _of_model(
    denoiser: Denoiser, params: Params, some: Split, c: Condition, *, may_err: bool = False
) -> tuple[Findings, dict[str, float]]:
    """What is wrong with one model, and its score.

    Args:
      denoiser: the model.
      params: its arrays.
      some: the examples it is asked about.
      c: conditions of all examples.
      may_err: it is a weaker model of a direction, whose large errors are no proof of a mistake.
    """
    few = len(some.x) < FEWEST
    if not few and not np.var(some.x):
        says = f"expected examples that differ, got {some.x.flat[0]:.4g} everywhere"
        return [Finding("data", "warning", says)], {}
    probe = probe_of(some.x, some.c, denoiser.schedule)
    wrong = _shape_is_wrong(denoiser, params, probe)
    if wrong is not None:
        return [Finding("output", "error", wrong)], {}
    both, ask = halves(denoiser, params, probe), asking(denoiser, params)
    findings = pairs.finite(*both, probe, _null_words(denoiser, probe))
    if findings:
        return findings, {}
    if few:
        return pairs.null(denoiser, both, probe, c), {}
    kind, shifts = kind_of(denoiser), _shifts(some.c)
    base, best = explanation(ask, kind, probe, denoiser.schedule, shifts)
    findings = _misread(base, best, kind)
    if may_err:
        findings = [replace(each, level="warning") for each in findings]
    findings += pairs.null(denoiser, both if best is None else None, probe, c)
    output = ask(probe.x_t, probe.t, probe.c)
    findings += pairs.batched(ask, output, probe)
    if best is None:  # else it may follow from what was found
        findings += pairs.ignored(ask, output, probe, exact=base.score < EXACT)
    return findings, {"score": base.score}


def _shape_is_wrong(denoiser: Denoiser, params: Params, probe: Probe) -> str | None:
    """What the model raises, or returns in place of floats of the shape of x_t."""
    x_t = jax.ShapeDtypeStruct(probe.x_t.shape, np.float32)
    t = jax.ShapeDtypeStruct(probe.t.shape, np.float32)
    try:
        got = jax.eval_shape(
            lambda *args: denoiser.apply(*args[:2], t=args[2], c=args[3]), params, x_t, t, probe.c
        )
    except Exception as error:  # whatever the model of a user raises
        return f"expected a prediction, got {type(error).__name__}: {one_line(error)}"
    if getattr(got, "shape", None) == x_t.shape and np.dtype(got.dtype).kind == "f":
        return None
    if getattr(got, "shape", None) == x_t.shape and str(got.dtype) == "bfloat16":
        return None
    return f"expected x0_hat as floats of shape {x_t.shape}, got {described(got)}"


def _null_words(denoiser: Denoiser, probe: Probe) -> str:
    if isinstance(denoiser, MakesPair):
        return "made by pair"
    null = denoiser.null(jax.tree.map(lambda leaf: jnp.asarray(leaf[:1]), probe.c))
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(null)]
    return str(leaves[0][0]) if len(leaves) == 1 and leaves[0].size == 1 else "no single label"


def _shifts(c: Condition) -> tuple[int, ...]:
    """Shifts of labels that are worth a try: neither where there is but one label."""
    labels = conditions.labels_of(c)
    return () if labels is None or len(np.unique(np.asarray(labels))) < 2 else (-1, 1)


def _misread(base: Reading, best: Reading | None, kind: Kind) -> Findings:
    """The finding of a model that is read wrongly, from the declared and the best reading."""
    errors = "squared error of x0_hat relative to that of the best linear estimate"
    if best is None:
        if base.score < WORSE:
            return []
        says = f"expected x0_hat near x0, got {base.score:.3g} times the squared error"
        advice = "is the model trained, and are kind, time, noise schedule and range of data right?"
        return [Finding("score", "warning", f"{says} of the best linear estimate; {advice}")]
    least, ratio = CERTAIN
    level: Level = (
        "error" if base.score >= least and best.score <= ratio * base.score else "warning"
    )
    subject, says, advice = best.world.subject, best.world.says, best.world.advice
    name, sign = best.output
    if not subject:
        subject = "kind"
        says = f"like {'minus ' if sign < 0 else ''}kind={name!r}, declared was {kind!r}"
        advice = f"pass kind={name!r}" + (" and minus the output" if sign < 0 else "")
    elif name != kind:
        says, advice = f"{says}, and like kind={name!r}", f"{advice}, and pass kind={name!r}"
    if sign < 0 and best.world.subject:
        advice += ", and take minus the output"
    got = f"{errors} is {base.score:.3g} as declared, {best.score:.3g} so"
    return [Finding(subject, level, f"the model looks {says}; {got}; {advice}")]
