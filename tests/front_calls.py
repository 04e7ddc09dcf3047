"""Calls of the front door that cannot be right.

Run as a program it makes them all, where no types are checked, and prints the errors as JSON.
"""

import dataclasses
import json
import types
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax

import lgd
from lgd import (
    data,
    denoisers,
    direct,
    evaluation,
    guidance,
    objectives,
    omega,
    schedules,
    training,
)
from lgd.types import Schedule

KEY, FLOW = jax.random.key(0), schedules.rectified_flow()
EXACT = denoisers.GaussianMixture((0, 1), FLOW)
PARAMS = EXACT.params(jnp.array([[1.0], [-1.0]]), 0.25)
LABELS = np.arange(64) % 2
X0 = np.where(LABELS == 0, 1.0, -1.0)[:, None] + np.random.default_rng(0).normal(size=(64, 1)) / 2
OBJECTIVE = objectives.SelfConsistency()
EPS = denoisers.from_function(
    lambda p, x, t, c: 0.5 * x, kind="eps", schedule=schedules.cosine(), null=2
)
NAN = np.where(X0 > 1.5, np.nan, X0)


def learn(**changed):
    arguments = {"key": KEY, "denoiser": EXACT, "params": PARAMS, "x0": X0, "c": LABELS}
    arguments |= {"objective": OBJECTIVE} | changed
    first = [arguments.pop(name) for name in ("key", "denoiser", "params", "x0", "c")]
    return lgd.learn_guidance(*first, **arguments)


def compare(settings=None, **changed):
    arguments = {"key": KEY, "denoiser": EXACT, "params": PARAMS, "guidances": {"mine": 1.0}}
    arguments |= {"x0": X0, "c": LABELS} | changed
    first = [arguments.pop(name) for name in ("key", "denoiser", "params", "guidances", "x0", "c")]
    quick = {"num_samples": 4, "num_steps": 1, "families": ("constant",), "progress": False}
    made = (
        evaluation.CompareSettings(**quick | settings) if isinstance(settings, dict) else settings
    )
    return lgd.compare(*first, settings=made, **arguments)


def path(settings=None, **changed):
    arguments = {"key": KEY, "denoiser": EXACT, "params": PARAMS, "x0": X0, "c": LABELS} | changed
    first = [arguments.pop(name) for name in ("key", "denoiser", "params", "x0", "c")]
    quick = {"num_particles": 2, "num_steps": 1, "num_sweeps": 1, "progress": False}
    made = direct.PathSettings(**quick | settings) if isinstance(settings, dict) else settings
    return lgd.path_guidance(*first, settings=made, **arguments)


def check(**changed):
    arguments = {"denoiser": EXACT, "params": PARAMS, "x0": X0, "c": LABELS} | changed
    first = [arguments.pop(name) for name in ("denoiser", "params", "x0", "c")]
    return lgd.check(*first, **arguments)


def function(**changed):
    arguments = {"function": lambda p, x, t, c: x, "kind": "x0", "schedule": FLOW, "null": 2}
    arguments |= changed
    return denoisers.from_function(arguments.pop("function"), **arguments)


@dataclasses.dataclass
class Unhashable:
    """A denoiser that is a plain dataclass."""

    schedule: Schedule = FLOW

    def apply(self, params, x_t, *, t, c):
        return x_t

    def null(self, c):
        return c


OWN_MODEL = types.SimpleNamespace(init=None, apply=None, project=None)
WITHOUT_REWARD = objectives.SelfConsistency(reward_weight=1.0)
FLAT = objectives.SelfConsistency(reward=lambda x, c: jnp.mean(x), reward_weight=1.0)
TRAJECTORY = objectives.Trajectory(times=(1.0, 0.5, 0.0))

# name: (a part of the message, the call)
DATA = {
    "x0 with NaN": ("x0", {"x0": NAN}),
    "x0 of bytes": ("x0: expected floats, got uint8", {"x0": np.zeros((64, 8, 8), np.uint8)}),
    "x0 of integers": ("x0", {"x0": np.arange(64)[:, None]}),
    "x0 of truths": ("x0", {"x0": X0 > 0}),
    "x0 of words": ("x0", {"x0": ["a"] * 64}),
    "x0 complex": ("x0", {"x0": X0 + 0j}),
    "x0 None": ("x0", {"x0": None}),
    "x0 a number": ("x0", {"x0": 3.0}),
    "x0 a dict": ("x0", {"x0": {"x": X0}}),
    "x0 ragged": ("x0", {"x0": [[1.0], [1.0, 2.0]]}),
    "x0 empty": ("x0", {"x0": X0[:0], "c": LABELS[:0]}),
    "c shorter": ("c: expected 64 rows", {"c": LABELS[:-1]}),
    "c a number": ("c", {"c": 1}),
    "c None": ("conditions", {"c": None}),
    "c of words": ("c: expected numbers", {"c": ["cat", "dog"] * 32}),
    "c as floats": ("c.astype(int)", {"c": LABELS.astype(float)}),
    "c with NaN": ("c: expected finite", {"c": np.full(64, np.nan)}),
    "c ragged": ("c: expected rows of one shape", {"c": [[1], [2, 3]] * 32}),
    "c beyond int32": ("c: expected integers", {"c": LABELS + 2**40}),
    "denoiser a word": ("denoiser", {"denoiser": "mixture"}),
    "denoiser None": ("denoiser", {"denoiser": None}),
    "denoiser a function": ("denoiser", {"denoiser": lambda p, x, t, c: x}),
    "denoiser a class": ("denoiser", {"denoiser": denoisers.GaussianMixture}),
    "denoiser a dict": ("denoiser", {"denoiser": {"apply": 1}}),
    "denoiser plain": (
        "denoiser: expected a denoiser that can be hashed",
        {"denoiser": Unhashable()},
    ),
}
LEARN = {
    "key a number": ("key", {"key": 0}),
    "key several": ("key", {"key": jax.random.split(KEY)}),
    "labels from 1": ("by - 1", {"c": LABELS + 1}),
    "a label missing": ("expected examples of every stratum, got none of [1]", {"c": 2 * LABELS}),
    "a label of a million": ("every stratum", {"c": np.where(LABELS, 10**6, 0)}),
    "labels below 0": ("stratum", {"c": LABELS - 1}),
    "stratum as floats": ("stratum", {"stratum": LABELS / 1.0}),
    "stratum shorter": ("stratum", {"stratum": LABELS[1:]}),
    "objective a word": ("objective", {"objective": "trajectory"}),
    "objective a class": ("objective", {"objective": objectives.SelfConsistency}),
    "objective optax": ("objective", {"objective": optax.adam(0.1)}),
    "objective a dict": ("objective", {"objective": {"times": (1.0, 0.0)}}),
    "objective a function": ("objective", {"objective": lambda *a: 0.0}),
    "model a word": ("model", {"model": "table"}),
    "model a class": ("model", {"model": omega.StepTable}),
    "model of one's own": ("model", {"model": OWN_MODEL}),
    "model a function": ("model", {"model": guidance.constant(1.0)}),
    "start a word": ("start", {"start": "constant"}),
    "start a number": ("start", {"start": 1.0}),
    "start a function": ("start", {"start": guidance.constant(1.0)}),
    "start a list": ("start", {"start": [guidance.constant(1.0)]}),
    "start empty": ("start", {"start": {}}),
    "start of numbers": ("start['mine']", {"start": {"mine": 1.0}}),
    "start of classes": ("start['mine']", {"start": {"mine": omega.StepTable}}),
    "trainer a word": ("trainer", {"trainer": "adam"}),
    "trainer a class": ("trainer", {"trainer": training.Trainer}),
    "trainer optax": ("trainer", {"trainer": optax.adam(0.1)}),
    "trainer an optimizer": ("trainer", {"trainer": training.Optimizer(num_steps=1)}),
    "trainer a dict": ("trainer", {"trainer": {"batch_size": 4}}),
    "a weight without reward": ("reward", {"objective": WITHOUT_REWARD}),
    "a reward of one scalar": ("reward", {"objective": FLAT}),
    "eps at alpha 0": ("start=0.999", {"denoiser": EPS, "params": (), "objective": TRAJECTORY}),
}
COMPARE = {
    "key a number": ("key", {"key": 0}),
    "guidances a list": ("guidances", {"guidances": [1.0]}),
    "guidances a number": ("guidances", {"guidances": 1.0}),
    "guidances a function": ("guidances", {"guidances": guidance.constant(1.0)}),
    "guidances empty": ("guidance", {"guidances": {}}),
    "guidances numbered": ("guidances", {"guidances": {1: 1.0}}),
    "guidance a word": ("guidances['mine']", {"guidances": {"mine": "constant"}}),
    "guidance a class": ("guidances['mine']", {"guidances": {"mine": guidance.Cfg}}),
    "measures a list": ("measures", {"measures": [evaluation.EnergyMeasure]}),
    "measures a word": ("measures", {"measures": "energy_distance"}),
    "measures of words": ("measures['fid']", {"measures": {"fid": "inception"}}),
    "settings a dict": ("settings", {"settings": 3}),
    "settings a class": ("settings", {"settings": evaluation.CompareSettings}),
    "families misspelt": ("did you mean 'constant'", {"settings": {"families": ["constnt"]}}),
    "family misspelt": ("did you mean 'constant'", {"settings": {"families": "constnt"}}),
    "families a number": ("families", {"settings": {"families": 3}}),
    "axes misspelt": ("did you mean 'constant'", {"settings": {"axes": {"constnt": {}}}}),
    "axes of a field": ("axes['constant']", {"settings": {"axes": {"constant": {"x": [1.0]}}}}),
    "few samples": ("num_samples: expected >= 2 of each of 2", {"settings": {"num_samples": 3}}),
    "too few first samples": ("screening", {"settings": {"screening": 1}}),
    "eps at alpha 0": ("start=0.999", {"denoiser": EPS, "params": ()}),
} | {
    f"{name} {i}": (name, {"settings": {name: value}})
    for name, values in {
        "num_samples": (0, -1, 2.5, "8", None, True),
        "num_steps": (0, -1, 2.5, "8"),
        "test_seeds": (1, 0, 2.5),
        "validation_seeds": (0, "1"),
        "finalists": (0, 1.5),
        "num_real": (0, 1e3),
        "batch": (-1, 0.5, None),
        "churn": (-0.1, 1.1, "0", float("nan")),
        "solver": ("huen", 3, None),
        "times": ([0.0, 1.0], [1.0], [2.0, 0.0]),
        "mesh": ("cpu", 8),
        "progress": (1, "no"),
    }.items()
    for i, value in enumerate(values)
}  # fmt: skip
PATH = {
    "key a number": ("key", {"key": 0}),
    "labels from 1": ("by - 1", {"c": LABELS + 1}),
    "stratum shorter": ("stratum", {"stratum": LABELS[1:]}),
    "settings a word": ("settings", {"settings": "quick"}),
    "settings a class": ("settings", {"settings": direct.PathSettings}),
    "eps at alpha 0": ("start=0.999", {"denoiser": EPS, "params": ()}),
} | {
    f"{name} {i}": (name, {"settings": {name: value}})
    for name, values in {
        "num_steps": (0, 2.5, "8"),
        "times": ([0.0, 1.0], [1.0], [2.0, 0.0], "all"),
        "num_particles": (1, 2.5, None),
        "num_sweeps": (0, True),
        "beta": (0.0, 2.5, "1", float("nan")),
        "churn": (-0.1, 1.1, "0"),
        "features": ("inception", 3),
        "omega_min": (-1.5, 0.5, "0"),
        "omega_max": (0.0, float("nan"), float("inf"), None),
        "strata_at_once": (0, 1.5),
        "progress": (1, "no"),
        "check": ("yes", None),
    }.items()
    for i, value in enumerate(values)
}
TRAINER = {
    f"{name} {i}": (name, {name: value})
    for name, values in {
        "batch_size": (0, -1, 2.5, "8", None, True),
        "save_every": (-1, 0.5),
        "log_every": (-1, "10"),
        "optimizer": (0.1, "adam", training.Optimizer, optax.adam(0.1), {"num_steps": 3}),
        "mesh": ("cpu", 2),
        "store": ("folder", 3),
        "on_log": ("print", 3),
        "on_step": (True, 1),
        "progress": (1, None),
        "check": ("yes", None),
    }.items()
    for i, value in enumerate(values)
}
OPTIMIZER = {
    f"{name} {i}": (name, {"num_steps": 10} | {name: value})
    for name, values in {
        "num_steps": (0, -3, 2.5, "8", None),
        "learning_rate": (0.0, -1.0, float("nan"), float("inf"), "0.1", None),
        "warmup_steps": (-1, 10, 0.5),
        "clip": (-1.0, float("nan"), None),
        "ema_decay": (1.0, -0.1, float("nan"), "0.9"),
        "max_skipped": (0, 1.5),
        "decay": ("cosine", 1),
    }.items()
    for i, value in enumerate(values)
}
FUNCTION = {
    "kind misspelt": ("did you mean 'velocity'", {"kind": "velocty"}),
    "kind None": ("kind", {"kind": None}),
    "kind upper": ("kind", {"kind": "EPS"}),
    "schedule a word": ("schedule", {"schedule": "cosine"}),
    "schedule a class": ("schedule", {"schedule": schedules.RectifiedFlow}),
    "schedule a maker": ("schedule", {"schedule": schedules.cosine}),
    "schedule None": ("schedule", {"schedule": None}),
    "schedule of two maps": (
        "which has no logsnr, t_from_logsnr",
        {"schedule": types.SimpleNamespace(alpha=1, sigma=2)},
    ),
    "function a word": ("function", {"function": "model"}),
    "function a class": ("function", {"function": Unhashable}),
    "null None": ("null", {"null": None}),
    "null a word": ("null", {"null": "none"}),
    "null and pair": ("null or pair", {"pair": lambda p, x, t, c: (x, x)}),
    "pair a word": ("pair", {"null": None, "pair": "model"}),
}
SPLIT = {
    "c shorter": ("Split", lambda: data.dataset.Split(X0, LABELS[1:])),
    "stratum shorter": ("Split", lambda: data.dataset.Split(X0, LABELS, LABELS[1:])),
    "labels shorter": ("Split", lambda: data.dataset.labelled(X0, LABELS[1:])),
    "labels as floats": ("labels", lambda: data.dataset.labelled(X0, LABELS / 1.0)),
    "labels a number": ("labels", lambda: data.dataset.labelled(X0, 3)),
}
LATE = {
    "bytes hold no null": ("c", lambda: _wide().null(jnp.zeros(2, jnp.uint8))),
    "bytes hold no mixture": ("c", lambda: denoisers.GaussianMixture(
        tuple(range(300)), FLOW).null(jnp.zeros(2, jnp.uint8))),
    "bytes hold no given null": ("null", lambda: function(null=1000).null(jnp.zeros(2, jnp.uint8))),
    "sample of eps": ("start=0.999", lambda: lgd.sample(
        KEY, EPS, (), jnp.zeros(2, int), shape=(1,))),
    "unroll of eps": ("start=0.999", lambda: lgd.sampling.unroll(
        KEY, EPS, (), jnp.zeros(2, int), jnp.ones((2, 1)), guidance=0.0, times=[1.0, 0.0])),
    "weaker a list": ("weaker", lambda: denoisers.Directions(EXACT, [EXACT])),
    "weaker a class": ("denoiser", lambda: denoisers.Directions(EXACT, {"a": Unhashable})),
    "params of one": ("params", lambda: learn(
        denoiser=denoisers.Directions(EXACT, {"early": EXACT}))),
    "weaker misspelt": ("names of weaker ['early'], got", lambda: learn(
        denoiser=denoisers.Directions(EXACT, {"early": EXACT}),
        params=(PARAMS, {"erly": PARAMS}))),
}  # fmt: skip


def _wide():
    return denoisers.NetworkDenoiser(denoisers.ResidualMLP(num_classes=1000), FLOW, 1000)


def cases():
    """Every call by its name: a part of the message, and the call."""
    made = {}
    for door, call, groups in (
        ("learn", learn, (DATA, LEARN)),
        ("compare", compare, (DATA, COMPARE)),
        ("path", path, (DATA, PATH)),
        ("check", check, (DATA,)),
        ("trainer", training.Trainer, (TRAINER,)),
        ("optimizer", training.Optimizer, (OPTIMIZER,)),
        ("function", function, (FUNCTION,)),
    ):
        for group in groups:
            for name, (part, arguments) in group.items():
                made[f"{door} {name}"] = part, lambda call=call, a=arguments: call(**a)
    for group in (SPLIT, LATE):
        made |= group
    return made


def main():
    warnings.simplefilter("ignore")
    found = {}
    for name, (_, call) in cases().items():
        try:
            call()
            found[name] = ["nothing", ""]
        except Exception as error:
            found[name] = [type(error).__name__, str(error)]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
