"""The two halves of a model, and whether its output depends on what it should, and on that alone."""

import jax
import numpy as np
from jaxtyping import Array

from lgd import conditions
from lgd.checks.probes import Ask, Probe
from lgd.checks.report import Finding, Findings
from lgd.types import Condition, Denoiser

SAME = 1e-5  # of the size of outputs: what differs by less is equal up to rounding
MIXED = 0.05  # the same, of outputs that depend on the other examples of a batch


def finite(cond: np.ndarray, uncond: np.ndarray, probe: Probe, null: str) -> Findings:
    """Halves that are NaN or inf somewhere, with the times."""
    found = []
    for name, half in (("conditional", cond), ("unconditional", uncond)):
        bad = ~np.isfinite(probe.by_time(half)).reshape(-1, probe.count, probe.x0[0].size).all(-1)
        if not bad.any():
            continue
        times = np.sort(probe.by_time(probe.t)[:, 0][bad.any(axis=1)])
        where = "every time" if bad.all() else f"t = {', '.join(f'{t:.3g}' for t in times)}"
        advice = (
            f"; the unconditional input is {null}: is it within the model's table?"
            if name == "unconditional"
            else "; are all conditions within the model's table?"
        )
        says = f"expected finite predictions, got NaN or inf of the {name} half at {where}"
        found.append(Finding("finite", "error", says + (advice if bad.all(axis=0).any() else "")))
    return found


def null(
    denoiser: Denoiser, cond: np.ndarray, uncond: np.ndarray, probe: Probe, c: Condition
) -> Findings:
    """A null that does nothing, or that is a condition of the data.

    Args:
      denoiser: the model.
      cond: the conditional half.
      uncond: the unconditional half.
      probe: the rows.
      c: conditions of all examples.
    """
    size = float(np.sqrt(np.mean(np.square(cond)))) or 1.0
    gaps = np.abs(probe.by_time(cond - uncond)).reshape(-1, probe.count, probe.x0[0].size)
    same = gaps.max(axis=(0, 2)) <= SAME * size  # of every example, at all times
    if same.all():
        says = "expected the halves to differ, got cond equal to uncond for all of"
        advice = "guidance cannot do anything: does the model take conditions, and is null right?"
        return [Finding("null", "warning", f"{says} {len(same)} examples; {advice}")]
    labels, given = conditions.labels_of(c), None
    if labels is not None and not hasattr(denoiser, "pair"):
        given = _constant_label(denoiser.null(labels[: probe.count]))
    if given is not None and given in np.unique(np.asarray(labels)):
        advice = "pass the label that the model was trained with where conditions were dropped"
        return [Finding("null", "warning", f"null = {given} is a label of the data; {advice}")]
    if not same.any():
        return []
    which = np.flatnonzero(same)
    of = "examples"
    if labels is not None:
        found = np.unique(np.asarray(probe.c[: probe.count])[which])
        of = f"label {found[0]}" if len(found) == 1 else f"labels {found[:5].tolist()}"
    says = f"cond equals uncond for {len(which)} of {probe.count} examples, all of {of}"
    advice = "the unconditional input must be none of the conditions of the data"
    return [Finding("null", "warning", f"{says}; {advice}")]


def _constant_label(null: Condition) -> int | None:
    """The label that is the unconditional input of all labels."""
    if conditions.labels_of(null) is None:
        return None
    values = np.unique(np.asarray(null))
    return int(values[0]) if len(values) == 1 else None


def dependence(ask: Ask, output: np.ndarray, probe: Probe, *, exact: bool) -> Findings:
    """An output that ignores x_t, t or c, or that depends on the other rows of its batch.

    Args:
      ask: the model.
      output: of the rows.
      probe: the rows.
      exact: the model predicts x0 almost exactly, so that it may ignore x_t and t.
    """
    found = []
    n, size = probe.count, float(np.sqrt(np.mean(np.square(output)))) or 1.0
    other_x = np.roll(probe.by_time(probe.x_t), 1, axis=1).reshape(probe.x_t.shape)
    changed = {
        "x_t": (other_x, probe.t, probe.c),
        "t": (probe.x_t, np.roll(probe.t, n), probe.c),
        "c": (probe.x_t, probe.t, _other_conditions(probe)),
    }
    for name, (x_t, t, c) in changed.items():
        if c is None or (exact and name != "c"):
            continue
        if np.abs(ask(x_t, t, c) - output).max() <= SAME * size:
            says = f"expected the output to depend on {name}, got the same for other {name}"
            found.append(Finding("inputs", "warning", says))
    half = len(probe.t) // 2
    index = np.concatenate([np.arange(half), np.arange(half)])
    again = ask(probe.x_t[index], probe.t[index], conditions.take(probe.c, index))[:half]
    if np.abs(again - output[:half]).max() > MIXED * size:
        says = "expected the same output for the same example, got another one in another batch"
        advice = "is dropout or batch normalisation in training mode?"
        found.append(Finding("inputs", "warning", f"{says}; {advice}"))
    return found


def _other_conditions(probe: Probe) -> Condition | None:
    """The conditions of other examples; None where all are equal."""
    index = np.roll(np.arange(len(probe.t)), probe.count // 2 + 1)
    other = conditions.take(probe.c, index)

    def equal(a: Array, b: Array) -> bool:
        return bool(np.array_equal(np.asarray(a), np.asarray(b)))

    pairs = zip(jax.tree.leaves(probe.c), jax.tree.leaves(other), strict=True)
    return None if all(equal(*pair) for pair in pairs) else other
