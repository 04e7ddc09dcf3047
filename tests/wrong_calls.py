"""Calls of samplers, guidance and learned weights that cannot be right.

Run as a program it makes them all, where no types are checked, and prints the errors as JSON.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np

from lgd import denoisers, encoders, guidance, omega, sampling, schedules
from lgd.types import Prediction, Schedule

FLOW = schedules.rectified_flow()
DENOISER = denoisers.from_function(
    lambda params, x, t, c: params * x, kind="x0", schedule=FLOW, null=2
)
SEVERAL = denoisers.Directions(DENOISER, {"weaker": DENOISER})
KEY, CLASSES, NAN = jax.random.key(0), jnp.asarray([0, 1, 1]), float("nan")
TABLE = omega.StepTable(times=(1.0, 0.5, 0.0), rows=omega.ByLabel(2))
VALUES = {"values": jnp.asarray([[0.5, 1.0], [1.5, 2.0]])}
LEARNED = omega.Guidance(TABLE, VALUES, "constant(1)", FLOW)
FOREIGN = omega.Guidance(TABLE, VALUES, "constant(1)", schedules.cosine())


def sample(**changed):
    """Two steps of three samples, with some arguments changed."""
    settings = {"denoiser": DENOISER, "params": 0.5, "c": CLASSES, "shape": (2,), "num_steps": 2}
    settings |= {"key": KEY, "guidance": 1.0} | changed
    first = [settings.pop(name) for name in ("key", "denoiser", "params", "c")]
    return sampling.sample(*first, **settings).x0


def unroll(**changed):
    settings = {"x_t": jnp.ones((3, 2)), "guidance": 1.0, "times": [1.0, 0.5, 0.0]} | changed
    return sampling.unroll(KEY, DENOISER, 0.5, CLASSES, **settings)


@dataclasses.dataclass(frozen=True)
class Narrow:
    """A denoiser whose prediction is broadcast to the data without a word."""

    schedule: Schedule

    def apply(self, params, x_t, *, t, c):
        return x_t[:, :1]

    def null(self, c):
        return c


@dataclasses.dataclass
class Unhashable:
    """A dataclass that is not frozen."""

    schedule: Schedule
    apply = Narrow.apply
    null = Narrow.null


@guidance.rule
class Odd:
    """A rule that returns something else than it should."""

    returned: str

    def calls(self, num_directions):
        return 1

    def prepare(self, denoiser, times, c):
        return self, None

    def init(self, x, c):
        return jnp.zeros(3)

    def apply(self, denoiser, params, state, x_t, *, step, t, c):
        return {
            "no pair": x_t,
            "no prediction": (x_t, state),
            "narrow x0": (Prediction(x_t[:, :1]), state),
            "narrow eps": (Prediction(x_t, x_t[:, :1]), state),
            "long state": (Prediction(x_t), jnp.zeros(4)),
            "no state": (Prediction(x_t), None),
            "whole state": (Prediction(x_t), jnp.zeros(3, jnp.int32)),
        }[self.returned]


def cases():
    """The argument or the word that the message has, and the call."""
    wrong = {
        "guidance": [
            "strong", "", b"1", [0.5], (0.5, 0.5), {"w": 1.0}, object(), True, np.True_, 1j, NAN,
            float("inf"), guidance.Cfg, guidance.constant, omega.StepTable, TABLE, sampling.Ddim,
            lambda t: t, lambda *, s, t: t, jnp.sin, lambda *, s, t, c: None,
            lambda *, s, t, c: 1.0, lambda *, s, t, c: t[:2], lambda *, s, t, c: t * jnp.inf,
            lambda *, s, t, c: jnp.stack([t, t], -1), jnp.full((2, 3), NAN),
            np.full((2, 3), np.inf), jnp.ones((3, 2)), jnp.ones(5), jnp.ones((1, 1, 1, 1)),
            jnp.ones((2, 3), bool),
            jnp.ones((2, 3, 2)), np.asarray(["a"]), FOREIGN, guidance.Clipped(FOREIGN),
            guidance.logsnr_interval(1.0, -1.0, 1.0, schedule=schedules.cosine()),
            guidance.constant_directions(1.0, 0.5), guidance.Cfg(jnp.ones((7, 3))),
        ],
        "num_steps": ["4", "a", 2.5, 2.0, 0, -1, True, None, [3], NAN, jnp.ones(3)],
        "times": [
            [1.0, NAN, 0.0], [1.0, 0.5, 0.5], [0.0, 1.0], [1.0], [], 1.0, "abc", ["a", "b"],
            [[1.0, 0.0]], [1.5, 0.0], [1.0, -0.1], [1.0, [0.0]], {}, np.linspace(0.0, 1.0, 10_000),
        ],
        "churn": [-0.1, 1.1, NAN, "a", None, [0.5], jnp.ones(3)],
        "solver": ["euler", None, sampling.Ddim, {}, 3, ["ddim"]],
        "key": [
            0, None, "k", jnp.zeros(2), jax.random.split(KEY, 3), np.zeros(3, np.uint32), [0, 1],
        ],
        "shape": [3, (-1,), (0,), (2.5,), "ab", None, ("a",), {}],
        "denoiser": [None, "a", DENOISER.apply, Narrow, Unhashable(FLOW), {}, FLOW],
        "condition": [None, "ab", [0, "a"], jnp.asarray(0), {"a": jnp.zeros(2), "b": jnp.zeros(3)}],
        "skip": ["no", 1],
        "return_trajectory": ["no"],
        "mesh": [2, "cpu"],
    }  # fmt: skip
    for name, values in wrong.items():
        for value in values:
            argument = {"condition": "c"}.get(name, name)
            yield name, lambda argument=argument, value=value: sample(**{argument: value})
    yield "guidance.*steps or of the samples", lambda: sample(guidance=jnp.ones(3), num_steps=3)
    yield "x0: .*prediction", lambda: sample(denoiser=Narrow(FLOW))
    for name in ("no pair", "no prediction"):
        yield "rule: .*Prediction", lambda name=name: sample(guidance=Odd(name))
    for name in ("long state", "no state", "whole state"):
        yield "state of the rule", lambda name=name: sample(guidance=Odd(name))
    yield "x0: ", lambda: sample(guidance=Odd("narrow x0"))
    yield "eps: ", lambda: sample(guidance=Odd("narrow eps"))
    for value in (jnp.ones((2, 2)), jnp.ones(()), jnp.ones((3, 2), jnp.int32), "a", None):
        yield "x_t", lambda value=value: unroll(x_t=value)
    yield "times", lambda: unroll(times=[0.5, 0.5, 0.0])
    yield "labels", lambda: sample(guidance=LEARNED, c=jnp.asarray([0, 5, 9]))
    yield "labels", lambda: sample(guidance=LEARNED, c=jnp.asarray([0.0, 1.0, 1.0]))
    yield (
        "directions",
        lambda: sample(
            denoiser=SEVERAL, params=(0.5, {"weaker": 0.4}), guidance=jnp.ones((2, 3, 3))
        ),
    )
    for value in (0, -1, 2.5, "a"):
        yield "num_steps", lambda value=value: sampling.count_nfe(DENOISER, 1.0, value)
    yield "omegas", lambda: sampling.count_skipping_nfe(jnp.ones(3))


def made():
    """The word that the message has, and what makes something that cannot be."""
    per_label = guidance.limited_interval_per_class
    interval, step, bins = guidance.limited_interval, omega.StepTable, omega.BinTable
    network = {"schedule": FLOW, "encoder": encoders.Labels(2)}
    rows = {
        "w": [lambda w=w: guidance.constant(w) for w in ("a", None, NAN, [1.0], True)],
        "lo": [
            lambda b=b: interval(1.0, *b) for b in (("a", 0.5), (0.5, 0.2), (0.5, 0.5), (NAN, 1))
        ],
        "hi": [lambda b=b: interval(1.0, *b) for b in ((0.1, None), (-0.1, 0.5), (0.1, 1.5))],
        "w: .*label": [lambda: per_label(1.0, 0.1, 0.2), lambda: per_label([], [], [])],
        "integer labels": [lambda: sample(guidance=per_label([1.0], [0.1], [0.2]), c=jnp.zeros(3))],
        "schedule": [
            lambda s=s, make=make: make(1.0, 0.1, 1.0, schedule=s)
            for s in (type(FLOW), None, "cosine")
            for make in (guidance.logsnr_interval, guidance.sigma_interval)
        ],
        "power": [lambda p=p: guidance.power_cosine(1.0, p) for p in (0.0, -1.0, NAN)],
        "low": [
            lambda k=k: guidance.Clipped(1.0, **k)
            for k in ({"low": 1.0, "high": -1.0}, {"low": 1.0}, {"low": NAN}, {"low": "a"})
        ],
        "high": [
            lambda: guidance.Clipped(1.0, high=None),
            lambda: guidance.DynamicThreshold(1.0, high=0.0),
        ],
        "quantile": [
            lambda q=q: guidance.DynamicThreshold(1.0, quantile=q) for q in (0.0, 1.1, NAN, "a")
        ],
        "guidance": [lambda: guidance.Clipped("a"), lambda: guidance.Clipped(guidance.Cfg)],
        "radius": [lambda r=r: guidance.Apg(1.0, radius=r) for r in (0.0, -1.0, NAN)],
        "eta": [lambda: guidance.Apg(1.0, eta="a")],
        "momentum": [lambda: guidance.Apg(1.0, momentum=NAN)],
        "kind": [
            lambda make=make: make(1.0, kind="epsilon")
            for make in (guidance.Tcfg, guidance.CfgZero, guidance.Raag)
        ],
        "lam": [lambda: guidance.CfgPlusPlus("a"), lambda: guidance.SmcCfg(1.0, lam=NAN)],
        "gain": [lambda: guidance.SmcCfg(1.0, gain=-0.1)],
        "zero_steps": [lambda n=n: guidance.CfgZero(1.0, zero_steps=n) for n in (-1, 1.5)],
        "phi": [lambda p=p: guidance.Rescaled(1.0, phi=p) for p in (-0.1, 1.1)],
        "fraction": [lambda: guidance.RectifiedCfgPlusPlus(1.0, fraction=1.0)],
        "rate": [lambda: guidance.Raag(1.0, rate=-1.0)],
        "threshold": [lambda: guidance.AdaptiveCfg(1.0, threshold=1.5)],
        "along": [lambda: guidance.Mog(1.0, along=0.0)],
        "across": [lambda: guidance.AutoMog(1.0, across=-1.0)],
        "pi": [
            lambda k=k: guidance.FeedbackGuidance(**k)
            for k in ({"pi": 0.0}, {"pi": 1.1}, {"pi": 0.3, "t0": 0.5, "t1": 0.5})
        ],
        "t0, t1": [lambda: guidance.FeedbackGuidance(t0=0.5)],
        "largest": [lambda: guidance.FeedbackGuidance(largest=1.0)],
        "posterior": [
            lambda: guidance.EvidenceScale(1.0, posterior="a"),
            lambda: sample(guidance=guidance.EvidenceScale(1.0)),
        ],
        "classifier": [lambda: guidance.GfcgStyle(1.0, "a")],
        "slopes": [lambda: guidance.ReCfg(1.0, jnp.zeros((3, 2, 2)), jnp.asarray([1.0, 0.0]))],
        "first time <= 0.999": [
            lambda make=make: sample(guidance=make(1.0, kind="eps"))
            for make in (guidance.Tcfg, guidance.SmcCfg)
        ],
        "omega": [lambda o=o: guidance.Cfg(o) for o in ("x", guidance.Cfg, {}, [1.0])],
        "sizes": [lambda s=s: guidance.skipping.Skipping(s) for s in ((), (3, 1), (-1, 2))],
        "low, high": [lambda: guidance.Field(low=1.0, high=0.0)],
        "growth": [lambda: guidance.Field(growth=(1.0, 0.0))],
        "grid": [
            lambda: guidance.Field(grid=(1.0, 0.5)),
            lambda: guidance.Field(low=0.0, grid=(-1.0,)),
        ],
        "fields": [lambda: guidance.Family(make=guidance.constant, fields={"q": guidance.Field()})],
        "times": [
            lambda t=t: step(times=t) for t in ((0.0, 1.0), (1.0, NAN), (2.0, 1.0), "ab", None)
        ],
        "init_omega": [lambda i=i: step(times=(1.0, 0.0), init_omega=i) for i in ("a", NAN, -1.0)],
        "num_bins": [lambda n=n: bins(num_bins=n) for n in (1, 2.5)],
        "support": [
            lambda k=k: bins(support=omega.Support(**k))
            for k in (
                {"s_min": 0.9, "t_max": 0.1},
                {"t_max": 2.0},
                {"gap_min": 0.5, "gap_max": 0.1},
            )
        ],
        "width": [lambda: omega.Network(**network, width=0)],
        "depth": [lambda: omega.Network(**network, depth=1.5)],
        "encoder": [lambda: omega.Network(schedule=FLOW, encoder=encoders.Labels)],
        "model": [lambda m=m: omega.bind(m, {}) for m in ("x", omega.StepTable, None)],
        "models": [lambda m=m: omega.PerDirection(models=(m,)) for m in ("a", omega.StepTable)],
        "params": [
            lambda p=p: omega.bind(TABLE, p)(s=jnp.zeros(3), t=jnp.ones(3), c=CLASSES)
            for p in (None, {}, {"values": jnp.ones((2, 5))})
        ],
        "cond and uncond": [lambda: guidance.mix(jnp.ones((3, 2)), jnp.ones((3, 1)), 1.0)],
    }
    for name, makers in rows.items():
        for make in makers:
            yield name, make


def asked():
    """The argument, and a query of learned guidance."""
    queries = [
        ("t", {"t": t, "c": 0}) for t in (1.5, -0.1, NAN, "a", None, jnp.asarray([0.5, 1.5]))
    ]
    queries += [("s", {"t": 0.3, "s": s, "c": 0}) for s in (0.5, 0.3, -1.0, "b")]
    queries += [
        ("c: .*depends on", {"t": 0.3}),
        ("labels", {"t": 0.3, "c": 5}),
        ("features", {"t": 0.3, "c": 0, "features": jnp.ones((1, 4))}),
    ]
    queries += [
        ("labels", {"t": 0.3, "c": 0.5}),
        ("length", {"t": jnp.full(3, 0.5), "c": jnp.zeros(2)}),
    ]
    for name, query in queries:
        yield name, lambda query=query: LEARNED(**query)
    for grid in ([0.0, 1.0], [1.0, 1.0], [1.2, 0.0], [1.0], "a", None):
        yield "times", lambda grid=grid: LEARNED.table(grid, CLASSES)
        yield "times", lambda grid=grid: LEARNED.to_json(grid, CLASSES)
    yield "labels", lambda: LEARNED.table([1.0, 0.0], [7])


CALLS = [*cases(), *made(), *asked()]


if __name__ == "__main__":
    jax.config.update("jax_disable_most_optimizations", True)
    errors = []
    for _, call in CALLS:
        try:
            errors.append(["none", repr(call())[:200]])
        except Exception as error:
            errors.append([type(error).__name__, str(error)])
    print(json.dumps(errors))
