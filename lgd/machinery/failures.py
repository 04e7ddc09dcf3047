"""What can go wrong in a computation, said in words: NaN, and too little device memory."""

import contextlib
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from lgd.diffusion import denoise_pair
from lgd.types import Condition, Denoiser, Params


class NonFiniteError(FloatingPointError):
    """NaN or inf where numbers were expected.

    steps: of the training, counted from 1, that were not finite, one after another.
    examples: indices of the training examples of each of these steps, where they are known.
    """

    def __init__(
        self,
        message: str,
        steps: Sequence[int] = (),
        examples: Sequence[Sequence] | None = None,
    ) -> None:
        super().__init__(message)
        self.steps, self.examples = list(steps), examples


class DeviceMemoryError(RuntimeError):
    """A device has too little memory; the message says what needs less."""


ADVICE = (
    "expected the computation to fit into device memory, got none left. What needs less: a smaller "
    "batch size, fewer particles or samples at once; more devices, or mesh.fsdp > 1 for large "
    "parameters; a network that recomputes its activations (denoiser.remat of a config, or "
    "jax.checkpoint)"
)


@contextlib.contextmanager
def memory_advice() -> Iterator[None]:
    """Turns JAX's error of a full device into a `DeviceMemoryError` with advice."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error) and "Out of memory" not in str(error):
            raise
        first_line = str(error).splitlines()[0]
        raise DeviceMemoryError(f"{ADVICE}. JAX: {first_line}") from error


def non_finite_times(
    denoiser: Denoiser,
    params: Params,
    x0: Float[np.ndarray, "b *dims"],
    c: Condition,
    times: Sequence[float],
) -> list[float]:
    """The times at which the denoiser, with or without its condition, returns NaN or inf.

    It is asked about x0 with noise of every time in turn. Of several processes, all ask the same.
    """

    @jax.jit
    def finite(params: Params, x0: Float[Array, "b *dims"], c: Condition, t: Array) -> Array:
        alpha, sigma = denoiser.schedule.alpha(t), denoiser.schedule.sigma(t)
        x_t = alpha * x0 + sigma * jax.random.normal(jax.random.key(0), x0.shape)
        pair = denoise_pair(denoiser, params, x_t, t=jnp.full(len(x0), t), c=c)
        return jnp.isfinite(jnp.stack(pair)).all()

    return [t for t in times if not finite(params, x0, c, np.float32(t))]


def blame(
    denoiser: Denoiser,
    params: Params,
    x0: Float[np.ndarray, "b *dims"],
    c: Condition,
    times: Sequence[float],
) -> str:
    """A sentence that says at which of these times the denoiser is not finite."""
    bad = non_finite_times(denoiser, params, x0, c, times)
    if not bad:
        return f"the denoiser is finite at each of {len(times)} times between 0 and 1"
    shown = ", ".join(f"{t:.6g}" for t in bad[:5])
    more = f" and {len(bad) - 5} more up to t = {max(bad):.6g}" if len(bad) > 5 else ""
    return f"the denoiser returns NaN or inf at t = {shown}{more}"
