"""A denoiser with weaker ones beside it: further directions of guidance."""

import dataclasses
from collections.abc import Callable, Mapping

from jaxtyping import Array, Float

from lgd.diffusion import checked_denoiser, denoise_pair, t_max
from lgd.machinery.arguments import named
from lgd.machinery.words import one_line
from lgd.types import Condition, Denoiser, Params, Schedule


@dataclasses.dataclass(frozen=True, init=False)
class Directions:
    """A denoiser that is also guided away from weaker ones (autoguidance).

    The guided prediction is ``cond + omega_0 (cond - uncond) + sum_k omega_k (cond - weaker_k)``
    (Karras et al., 2024, arXiv 2406.02507), so omega is (b, 1 + number of weaker denoisers).
    Parameters are ``(params, {name: params of the weaker denoiser})``.

    >>> import lgd
    >>> good, bad = (lgd.denoisers.from_function(lambda p, x, t, c: p * x, null=2, kind="x0",
    ...     schedule=lgd.schedules.rectified_flow()) for _ in range(2))
    >>> lgd.diffusion.direction_names(lgd.denoisers.Directions(good, {"early": bad}))
    ('uncond', 'early')
    """

    denoiser: Denoiser
    weaker: tuple[tuple[str, Denoiser], ...]

    def __init__(self, denoiser: Denoiser, weaker: Mapping[str, Denoiser]) -> None:
        named("weaker", weaker, "denoisers")
        if not weaker or "uncond" in weaker:
            raise ValueError(f"expected names of weaker denoisers, not 'uncond', got {[*weaker]}")
        for part in (denoiser, *weaker.values()):
            checked_denoiser(part)
        object.__setattr__(self, "denoiser", denoiser)
        object.__setattr__(self, "weaker", tuple(weaker.items()))

    @property
    def schedule(self) -> Schedule:
        """The forward process of the denoiser."""
        return self.denoiser.schedule

    @property
    def kind(self) -> str:
        """What the denoiser predicts, x0 where it does not say."""
        return getattr(self.denoiser, "kind", "x0")

    @property
    def t_max(self) -> float:
        """The latest time at which all of the denoisers can be asked."""
        return min(t_max(part) for part in (self.denoiser, *dict(self.weaker).values()))

    @property
    def weaker_names(self) -> tuple[str, ...]:
        """Names of the further directions."""
        return tuple(name for name, _ in self.weaker)

    def parts(self, params: Params) -> tuple[tuple[str, Denoiser, Params], ...]:
        """The denoisers with their names, "" that of the main one, and parameters."""
        main, of = self._both(params)
        weaker = [(name, other, of[name]) for name, other in self.weaker]
        return (("", self.denoiser, main), *weaker)

    def with_parts(self, function: Callable[[Denoiser], Denoiser]) -> "Directions":
        """The same directions with ``function(denoiser)`` in the place of every denoiser."""
        weaker = {name: function(other) for name, other in self.weaker}
        return Directions(function(self.denoiser), weaker)

    def apply(
        self, params: Params, x_t: Float[Array, "b *dims"], *, t: Float[Array, " b"], c: Condition
    ) -> Float[Array, "b *dims"]:
        """``x0_hat`` of the denoiser itself."""
        return self.denoiser.apply(self._both(params)[0], x_t, t=t, c=c)

    def null(self, c: Condition) -> Condition:
        """The unconditional input of the denoiser itself."""
        return self.denoiser.null(c)

    def pair(
        self, params: Params, x_t: Float[Array, "b *dims"], *, t: Float[Array, " b"], c: Condition
    ) -> tuple[Float[Array, "b *dims"], Float[Array, "b *dims"]]:
        """The conditional and the unconditional ``x0_hat`` of the denoiser itself."""
        return denoise_pair(self.denoiser, self._both(params)[0], x_t, t=t, c=c)

    def weaker_predictions(
        self, params: Params, x_t: Float[Array, "b *dims"], *, t: Float[Array, " b"], c: Condition
    ) -> tuple[Float[Array, "b *dims"], ...]:
        """The conditional ``x0_hat`` of every weaker denoiser."""
        of = self._both(params)[1]
        return tuple(other.apply(of[name], x_t, t=t, c=c) for name, other in self.weaker)

    def _both(self, params: Params) -> tuple[Params, Mapping[str, Params]]:
        """The parameters of the denoiser, and those of the weaker ones by name."""
        is_pair = isinstance(params, tuple | list) and len(params) == 2
        has_names = is_pair and isinstance(params[1], Mapping)
        if has_names and set(params[1]) == set(self.weaker_names):
            return params[0], params[1]
        got = one_line([*params[1]]) if has_names else f"a {type(params).__name__}"
        expected = f"(params, {{name: params}}) with names of weaker {list(self.weaker_names)}"
        raise ValueError(f"params: expected {expected}, got {got}")
