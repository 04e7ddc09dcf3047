"""Training steps of a denoiser as shares of the matrix peak, and what changes them."""

import contextlib
import dataclasses
import functools
import inspect
import math
from typing import Any, Literal
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.layout import Format, Layout
from jaxtyping import Array
from ml_collections import ConfigDict

from experiments import build
from experiments.benchmarks import cost
from experiments.benchmarks.device_profile import profile
from experiments.benchmarks.matrix_peak import matrix_peak
from experiments.benchmarks.timing import median_seconds
from lgd import parallel, training
from lgd.denoisers import NetworkDenoiser, layers
from lgd.denoisers.layers import Remat
from lgd.types import Batch, Params, PRNGKey

NUM_CLASSES = 1000
STEPS = 5  # timed together, as a training runs: the next is sent before one has ended
CALLS = 3  # that a step on an image counts as: forward, and backward as two


@dataclasses.dataclass(frozen=True)
class Variant:
    """How a training step is made.

    attention: cuDNN's where `layers.cudnn_supports` it, or XLA's operations.
    layouts: of parameters and moments in memory: row-major, or what the compiler prefers.
    """

    batch: int
    remat: Remat = "none"
    attention: Literal["cudnn", "xla"] = "cudnn"
    donate: bool = True
    layouts: Literal["default", "compiler"] = "default"


def variants(batch: int) -> dict[str, Variant]:
    """One thing changed at a time, and a larger batch that recomputing makes room for."""
    base = Variant(batch)
    change = functools.partial(dataclasses.replace, base)
    return {
        f"batch {batch}": base,
        f"batch {batch // 2}": change(batch=batch // 2),
        f"batch {2 * batch}": change(batch=2 * batch),
        "recomputes activations": change(remat="activations"),
        "recomputes blocks": change(remat="blocks"),
        f"recomputes activations, batch {4 * batch}": change(remat="activations", batch=4 * batch),
        "attention by XLA": change(attention="xla"),
        "state not donated": change(donate=False),
        "layouts of the compiler": change(layouts="compiler"),
    }


@dataclasses.dataclass(frozen=True)
class Network:
    """The denoiser of a config, for images of a shape."""

    config: ConfigDict
    shape: tuple[int, int, int]

    def denoiser(self, remat: Remat = "none") -> NetworkDenoiser:
        """It, recomputing."""
        config = ConfigDict(self.config)
        config.denoiser.remat = remat
        return build.network_denoiser(config, NUM_CLASSES)

    def params(self) -> Params:
        """Random, also where a network starts with zeros: products of zeros run faster."""
        rng = np.random.default_rng(0)

        def draw(leaf: jax.ShapeDtypeStruct) -> Array:
            size = math.prod(leaf.shape[:-1]) ** -0.5 if leaf.shape[1:] else 0.1
            return jnp.asarray(size * rng.standard_normal(leaf.shape, np.float32))

        return jax.tree.map(draw, self.param_shapes())

    def param_shapes(self) -> Params:
        """ShapeDtypeStructs of `params`."""
        return jax.eval_shape(lambda: self.denoiser().init(jax.random.key(0), self.shape))

    def case(self, batch: int, groups: int, remat: Remat = "none") -> cost.Case:
        """It, as the other benchmarks take it."""
        return cost.Case(self.denoiser(remat), self.params(), self.shape, batch, groups)

    def call_flops(self) -> float:
        """Of one call for one image."""
        return cost.call_flops(cost.Case(self.denoiser(), self.param_shapes(), self.shape, 1, 1))


class TrainingStep:
    """A compiled step and its state; calling it takes `STEPS` steps."""

    def __init__(self, network: Network, variant: Variant) -> None:
        key, batch = jax.random.key(2), variant.batch
        labels = jnp.arange(batch, dtype=jnp.int32) % NUM_CLASSES
        self._batch = Batch(jax.random.normal(key, (batch, *network.shape)), labels)
        self._key = key
        optimizer = build.denoiser_optimizer(network.config)
        self._state = training.init_state(network.params(), optimizer)
        denoiser, loss = network.denoiser(variant.remat), build.denoising_loss(network.config)

        def train_loss(params: Params, frozen: tuple, batch: Batch, key: PRNGKey) -> Any:
            return loss(key, denoiser, params, batch.x0, batch.c), {}

        mesh = parallel.make_mesh(1)
        step: Any = training.make_step(
            train_loss, optimizer, self._state, (), self._batch, mesh=mesh
        )
        with _attention(variant):
            self._compiled = self._compile(step, variant)

    def _compile(self, step: Any, variant: Variant) -> Any:
        """As `make_step` does, but for donation and layouts."""
        arguments = (self._state, (), self._batch, self._key)
        if variant.layouts == "default" and variant.donate:
            return step.lower(*arguments).compile()
        step = inspect.unwrap(step)
        if variant.layouts == "default":
            return jax.jit(step).lower(*arguments).compile()
        free = jax.jit(step, in_shardings=(Format(Layout.AUTO), None, None, None))
        formats = free.lower(*jax.eval_shape(lambda: arguments)).compile().input_formats[0][0]
        self._state = jax.device_put(self._state, formats)
        chosen = jax.jit(
            step,
            in_shardings=(formats, None, None, None),
            out_shardings=(formats, None),
            donate_argnums=0,
        )
        return chosen.lower(self._state, *arguments[1:]).compile()

    def __call__(self) -> Any:
        """The info of the last step."""
        for _ in range(STEPS):
            self._state, info = self._compiled(self._state, (), self._batch, self._key)
        return info

    @property
    def planned_bytes(self) -> int:
        """Of device memory: arguments, results that are none of them, and what lies between."""
        memory = self._compiled.memory_analysis()
        return int(
            memory.argument_size_in_bytes
            + memory.output_size_in_bytes
            - memory.alias_size_in_bytes
            + memory.temp_size_in_bytes
        )

    @property
    def text(self) -> str:
        """The compiled program."""
        return self._compiled.as_text()


def _attention(variant: Variant) -> contextlib.AbstractContextManager[Any]:
    if variant.attention == "cudnn":
        return contextlib.nullcontext()
    return mock.patch.object(layers, "cudnn_supports", return_value=False)


def share(
    network: Network, variant: Variant, *, matrices: tuple[int, ...], rounds: int
) -> dict[str, float]:
    """Seconds of a step and its share of the peak, measured right before; bytes that XLA plans.

    The work of an image is that of `CALLS` calls; what is recomputed is time and no work.
    """
    peak = matrix_peak(matrices, rounds)["best"]
    step = TrainingStep(network, variant)
    seconds = median_seconds(step, rounds) / STEPS
    return {
        "seconds": seconds,
        "images_per_second": variant.batch / seconds,
        "share": CALLS * network.call_flops() * variant.batch / seconds / peak,
        "peak": peak,
        "planned_bytes": step.planned_bytes,
    }


def step_profile(network: Network, variant: Variant) -> dict[str, Any]:
    """Where its time goes, see `device_profile.profile`."""
    step = TrainingStep(network, variant)
    return profile(step, step.text, rounds=2)
