"""Errors of computations, with messages that say what to do: NaN, too little device memory."""

import contextlib
from collections.abc import Iterator, Sequence

import jax


class NonFiniteError(FloatingPointError):
    """NaN or inf where numbers were expected.

    steps: training steps, counted from 1, that were not finite, one after another.
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


class OtherTrainingError(ValueError):
    """A store holds the states of another training."""


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
    """Turn JAX's error of a full device into a `DeviceMemoryError` with advice."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error) and "Out of memory" not in str(error):
            raise
        first_line = str(error).splitlines()[0]
        raise DeviceMemoryError(f"{ADVICE}. JAX: {first_line}") from error
