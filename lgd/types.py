"""Array aliases and the contracts that the rest of the library is written against.

Shapes in signatures follow one alphabet: ``b`` examples, ``m`` particles of one example, ``g``
groups of one condition, ``n`` members of a group, ``k`` steps, ``d`` flattened data, ``*dims`` the
data's own axes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Float, Int

PyTree: TypeAlias = Any
Params: TypeAlias = PyTree
Condition: TypeAlias = PyTree  # leaves (b, ...): labels (b,), vectors (b, e), tokens, a dict
PRNGKey: TypeAlias = jax.Array
Scalar: TypeAlias = float | int | np.number[Any] | Float[Array, ""]


@runtime_checkable
class Schedule(Protocol):
    """The forward process ``x_t = alpha(t) x0 + sigma(t) eps``, t in [0, 1], 0 is data.

    All four maps take any shape and are differentiable. ``logsnr = 2 log(alpha / sigma)``
    decreases in t and may be infinite at the ends.
    """

    def alpha(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]: ...
    def sigma(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]: ...
    def logsnr(self, t: Float[Array, "*s"]) -> Float[Array, "*s"]: ...
    def t_from_logsnr(self, logsnr: Float[Array, "*s"]) -> Float[Array, "*s"]: ...


@runtime_checkable
class Denoiser(Protocol):
    """A frozen conditional model, always read as a prediction of x0.

    Instances are hashable and hold no arrays: arrays live in ``params``.
    """

    @property
    def schedule(self) -> Schedule:
        """The forward process the model was trained on."""

    def apply(
        self, params: Params, x_t: Float[Array, "b *dims"], *, t: Float[Array, " b"], c: Condition
    ) -> Float[Array, "b *dims"]:
        """Posterior mean ``x0_hat = E[x0 | x_t, c]``, shape of x_t."""

    def null(self, c: Condition) -> Condition:
        """The unconditional input for conditions c.

        With the structure, shapes and dtypes of c, both halves run as one batch; anything else that
        the model takes makes two calls of them. A `MakesPair` makes the halves by itself instead.
        """


# What some denoisers have beside this, each a protocol of its own that others leave out.


@runtime_checkable
class MakesPair(Protocol):
    """A denoiser whose halves are a matter of its own."""

    def pair(
        self, params: Params, x_t: Float[Array, "b *dims"], *, t: Float[Array, " b"], c: Condition
    ) -> tuple[Float[Array, "b *dims"], Float[Array, "b *dims"]]:
        """The conditional and the unconditional ``x0_hat``."""


@runtime_checkable
class EndsEarly(Protocol):
    """A denoiser that cannot be asked at all times."""

    @property
    def t_max(self) -> float:
        """The latest time at which it can be asked."""


@runtime_checkable
class Predicts(Protocol):
    """A denoiser that shows its output before x0 is made of it."""

    @property
    def kind(self) -> Any:
        """What the output is, one of `lgd.diffusion.KINDS`."""

    def prediction(
        self, params: Params, x_t: Float[Array, "b *dims"], *, t: Float[Array, " b"], c: Condition
    ) -> Float[Array, "b *dims"]:
        """The output, shape of x_t."""


@runtime_checkable
class HasParts(Protocol):
    """A denoiser made of others."""

    def parts(self, params: Params) -> tuple[tuple[str, Denoiser, Params], ...]:
        """The denoisers with their names, "" that of the main one, and parameters."""

    def with_parts(self, function: Callable[[Denoiser], Denoiser]) -> Denoiser:
        """The same with ``function(part)`` in the place of every part."""


@runtime_checkable
class HasWeaker(Protocol):
    """A denoiser with weaker ones beside it, which guidance leads away from too."""

    @property
    def weaker_names(self) -> tuple[str, ...]:
        """Names of the further directions."""

    def weaker_predictions(
        self, params: Params, x_t: Float[Array, "b *dims"], *, t: Float[Array, " b"], c: Condition
    ) -> tuple[Float[Array, "b *dims"], ...]:
        """The conditional ``x0_hat`` of every weaker denoiser."""


def t_max(denoiser: Denoiser) -> float:
    """The latest time at which a denoiser can be asked: its ``t_max``, by default 1."""
    return float(denoiser.t_max) if isinstance(denoiser, EndsEarly) else 1.0


@runtime_checkable
class OmegaModel(Protocol):
    """A learned guidance weight: pure functions of its parameters, and answers about itself."""

    @property
    def num_features(self) -> int:
        """Features of the predictions that `apply` takes beside (s, t, c); 0: none."""

    @property
    def num_directions(self) -> int:
        """Directions that it weighs: 1, or the size of omega's last axis."""

    def init(self, key: PRNGKey, c: Condition) -> Params:
        """Draw parameters; c is an example, leaves (1, ...) or more."""

    def apply(
        self, params: Params, *, s: Float[Array, " b"], t: Float[Array, " b"], c: Condition
    ) -> Float[Array, " b"]:
        """omega(s, t, c), shape (b,), or (b, k) for k directions."""

    def project(self, params: Params) -> Params:
        """Nearest admissible parameters; applied after every update."""


class Prediction(NamedTuple):
    """The prediction of a rule: x0_hat, and a noise where x0_hat does not imply it.

    eps: None: ``(x_t - alpha x0) / sigma``. DDIM honours another one, the other solvers refuse it.
    """

    x0: Any  # (b, *dims)
    eps: Any = None  # (b, *dims) or None


class Step(NamedTuple):
    """The step that rules and solvers take; scalars, or arrays (k,) for all steps."""

    index: Any  # int32, from 0
    t: Any  # where the step comes from
    s: Any  # where it goes to
    is_first: Any
    is_last: Any
    key: Any  # of the noise of the step
    churn: Any  # None: 0, and nothing is drawn
    inputs: Any  # what `Rule.prepare` made for this step


@runtime_checkable
class Rule(Protocol):
    """How a sampler combines the predictions of a model, for example classifier-free guidance.

    A frozen dataclass and a pytree, see `lgd.guidance.rule`: its arrays and floats are leaves, so
    that one compiled sampler serves all their values and gradients reach them.
    """

    def calls(self, num_directions: int) -> int:
        """Network rows for each sample and call of `apply`; 2: cond and uncond."""

    def prepare(
        self, denoiser: Denoiser, times: Float[Array, " n"], c: Condition
    ) -> tuple["Rule", PyTree]:
        """The rule as it walks, and inputs of every step, leaves (k, ...), or None for none.

        It is called once, before the walk: weights of (s, t, c) are computed here.
        """

    def init(self, x: Float[Array, "b *dims"], c: Condition) -> PyTree:
        """State before the first step, leaves (b, ...) or scalars; None: there is none."""

    def apply(
        self,
        denoiser: Denoiser,
        params: Params,
        state: PyTree,
        x_t: Float[Array, "b *dims"],
        *,
        step: Step,
        t: Float[Array, " b"],
        c: Condition,
    ) -> tuple[Prediction, PyTree]:
        """The guided prediction at x_t, and the state after it."""


@runtime_checkable
class SkipsCalls(Protocol):
    """A rule that can leave out calls of the network."""

    def skipping(self, inputs: PyTree, calls: Int[np.ndarray, " k"]) -> tuple[Rule, PyTree, float]:
        """The rule and inputs that do, and the number of network rows for each sample.

        inputs: of every step, as `Rule.prepare` made them. calls: predictions asked for at every
        step.
        """


# (x_t, t, rule_state) -> (prediction, rule_state)
Predict: TypeAlias = Callable[[Array, Float[Array, " b"], PyTree], tuple[Prediction, PyTree]]


@runtime_checkable
class Drawing(Protocol):
    """Draws samples (g, count, *dims), with the same noise for all guidance and the same seed."""

    def __call__(self, guidance: Any, count: int, /, *, seed: int) -> Float[Array, "g n *dims"]: ...


@runtime_checkable
class Solver(Protocol):
    """One step of a sampler. A rule advances once a step, at the solver's first stage."""

    @property
    def takes_churn(self) -> bool:
        """Whether it draws noise at churn > 0."""

    def calls(self, num_steps: int) -> Int[np.ndarray, " k"]:
        """Predictions asked for at every step."""

    def init(self, x: Float[Array, "b *dims"]) -> PyTree:
        """Memory before the first step."""

    def step(
        self,
        schedule: Schedule,
        predict: Predict,
        rule_state: PyTree,
        x: Float[Array, "b *dims"],
        memory: PyTree,
        step: Step,
    ) -> tuple[Float[Array, "b *dims"], PyTree, PyTree]:
        """(x at step.s, rule_state, memory)."""


class Batch(NamedTuple):
    """Real data: examples x0 (b, *dims), c (b, ...); or groups x0 (g, n, *dims), c (g, n, ...)."""

    x0: Any
    c: Condition


# omega(s=, t=, c=) -> (b,) or (b, directions): written by hand, or a model with its params; some
# also take features=, see `lgd.guidance.takes_features`.
OmegaFn: TypeAlias = Callable[..., Float[Array, " b"]]
# phi(x): (n, *dims) -> (n, f)
FeatureFn: TypeAlias = Callable[[Array], Array]
# R(x0, c): (b, *dims), (b, ...) -> (b,)
RewardFn: TypeAlias = Callable[[Array, Condition], Float[Array, " b"]]
