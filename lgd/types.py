"""Array aliases and the three contracts that the rest of the library is written against.

Shapes in signatures follow one alphabet: ``b`` examples, ``m`` particles of one example, ``g``
groups of one condition, ``n`` members of a group, ``k`` steps, ``d`` flattened data, ``*dims`` the
data's own axes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Float

PyTree: TypeAlias = Any
Params: TypeAlias = PyTree
Condition: TypeAlias = PyTree  # leaves (b, ...): int labels (b,), or vectors (b, e), or a dict
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
        """The unconditional input: structure, shapes and dtypes of c."""


@runtime_checkable
class OmegaModel(Protocol):
    """A learned guidance weight: a pair of pure functions, and the set its params live in."""

    def init(self, key: PRNGKey) -> Params:
        """Draw parameters."""

    def apply(
        self, params: Params, *, s: Float[Array, " b"], t: Float[Array, " b"], c: Condition
    ) -> Float[Array, " b"]:
        """omega(s, t, c), shape (b,)."""

    def project(self, params: Params) -> Params:
        """Nearest admissible parameters; applied after every update."""


class Batch(NamedTuple):
    """Real data: examples x0 (b, *dims), c (b, ...); or groups x0 (g, n, *dims), c (g, ...)."""

    x0: Any
    c: Condition


# omega(s=, t=, c=) -> (b,): a schedule written by hand, or a model bound to its params.
OmegaFn: TypeAlias = Callable[..., Float[Array, " b"]]
# phi(x): (n, *dims) -> (n, f)
FeatureFn: TypeAlias = Callable[[Array], Array]
# R(x0, c): (b, *dims), (b, ...) -> (b,)
RewardFn: TypeAlias = Callable[[Array, Condition], Float[Array, " b"]]
