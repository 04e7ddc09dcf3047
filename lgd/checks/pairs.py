"""The two halves of a model, and whether its output depends on what it should and on no more."""

import jax
import jax.numpy as jnp
import numpy as np

from lgd import conditions
from lgd.checks.probes import Ask, Probe
from lgd.checks.report import Finding, Findings
from lgd.types import Condition, Denoiser, MakesPair

SAME = 1e-5  # of the size of outputs: what differs by less is equal up to rounding
MIXED = 0.02  # the same, of outputs that depend on the other examples of a batch


def finite(cond: np.ndarray, uncond: np.ndarray, probe: Probe, null: str) -> Findings:
    """Halves that are NaN or inf somewhere, with the times; null: the unconditional input."""
    halves = {"conditional": cond, "unconditional": uncond}
    bad = {
        name: ~np.isfinite(probe.by_time(half))
        .reshape(-1, probe.num_examples, probe.x0[0].size)
        .all(-1)
        for name, half in halves.items()
    }
    names = [name for name, where in bad.items() if where.any()]
    if not names:
        return []
    at = bad[names[0]]
    times = np.sort(probe.by_time(probe.t)[:, 0][at.any(axis=1)])
    where = "every time" if at.any(axis=1).all() else f"t = {', '.join(f'{t:.3g}' for t in times)}"
    got = f"NaN or inf of the {' and the '.join(names)} half, at {where}, for {at.any(0).sum()} of"
    says = f"expected finite predictions, got {got} {probe.num_examples} examples"
    if where == "every time":
        what = f"the unconditional input, {null}," if "conditional" not in names else "every c"
        says = f"{says}; is {what} within the model's table?"
    return [Finding("finite", "error", says)]


def null(
    denoiser: Denoiser, halves: tuple[np.ndarray, np.ndarray] | None, probe: Probe, c: Condition
) -> Findings:
    """A null that does nothing, or that is a condition of the data.

    Args:
      denoiser: the model.
      halves: the conditional and the unconditional one; None: only labels are looked at.
      probe: the rows.
      c: conditions of all examples.
    """
    labels, given = conditions.labels_of(c), None
    if labels is not None and not isinstance(denoiser, MakesPair):
        given = _constant_label(denoiser.null(jnp.asarray(labels[: probe.num_examples])))
    if given is not None and given in np.unique(np.asarray(labels)):
        advice = "pass the label that the model was trained with where conditions were dropped"
        return [Finding("null", "warning", f"null = {given} is a label of the data; {advice}")]
    same = np.zeros(probe.num_examples, bool) if halves is None else _equal(*halves, probe)
    if same.all():
        says = "expected the halves to differ, got cond equal to uncond for all of"
        advice = "guidance cannot do anything: does the model take conditions, and is null right?"
        return [Finding("null", "warning", f"{says} {len(same)} examples; {advice}")]
    if not same.any():
        return []
    of = "them"
    if labels is not None:
        which = np.unique(np.asarray(probe.c[: probe.num_examples])[same])
        of = f"label {which[0]}" if len(which) == 1 else f"labels {which[:5].tolist()}"
    says = f"cond equals uncond for {same.sum()} of {probe.num_examples} examples, all of {of}"
    advice = "the unconditional input must be none of the conditions of the data"
    return [Finding("null", "warning", f"{says}; {advice}")]


def _equal(cond: np.ndarray, uncond: np.ndarray, probe: Probe) -> np.ndarray:
    """The examples (n,) whose halves are equal at all times."""
    gaps = np.abs(_flat(cond - uncond, probe))
    same: np.ndarray = gaps.max(axis=(0, 2)) <= SAME * _size(cond)
    return same


def _constant_label(null: Condition) -> int | None:
    """The label that is the unconditional input of all labels."""
    if conditions.labels_of(null) is None:
        return None
    values = np.unique(np.asarray(null))
    return int(values[0]) if len(values) == 1 else None


def ignored(ask: Ask, output: np.ndarray, probe: Probe, *, exact: bool) -> Findings:
    """An output that ignores x_t, t or c.

    Args:
      ask: the model.
      output: of the rows.
      probe: the rows.
      exact: the model predicts x0 almost exactly, so that it may ignore x_t and t.
    """
    other_x = np.roll(probe.by_time(probe.x_t), 1, axis=1).reshape(probe.x_t.shape)
    changed = {
        "x_t": None if exact else (other_x, probe.t, probe.c),
        "t": None if exact else (probe.x_t, np.roll(probe.t, probe.num_examples), probe.c),
        "c": (probe.x_t, probe.t, _other_conditions(probe)),
    }
    findings = []
    for name, inputs in changed.items():
        if inputs is None or inputs[2] is None:
            continue
        if np.abs(ask(*inputs) - output).max() <= SAME * _size(output):
            says = f"expected the output to depend on {name}, got the same for other {name}"
            findings.append(Finding("inputs", "warning", says))
    return findings


def batched(ask: Ask, output: np.ndarray, probe: Probe) -> Findings:
    """An output that depends on the other rows of its batch, or on the place of a row in it.

    Args:
      ask: the model.
      output: of the rows.
      probe: the rows.
    """
    half = len(probe.t) // 2
    index = np.concatenate([np.arange(half)[::-1], np.arange(half)])
    again = ask(probe.x_t[index], probe.t[index], conditions.take(probe.c, index))[:half][::-1]
    if np.abs(again - output[:half]).max() <= MIXED * _size(output):
        return []
    says = "expected the same output for the same example, got another one in another batch"
    advice = "is dropout or batch normalisation in training mode?"
    return [Finding("inputs", "warning", f"{says}; {advice}")]


def _flat(values: np.ndarray, probe: Probe) -> np.ndarray:
    """Values of rows as (times, examples, numbers)."""
    return values.reshape(-1, probe.num_examples, probe.x0[0].size)


def _size(output: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(output)))) or 1.0


def _other_conditions(probe: Probe) -> Condition | None:
    """The conditions of other examples; None where all are equal."""
    index = np.roll(np.arange(len(probe.t)), probe.num_examples // 2 + 1)
    other = conditions.take(probe.c, index)

    pairs = zip(jax.tree.leaves(probe.c), jax.tree.leaves(other), strict=True)
    same = all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs)
    return None if same else other
