"""Training steps of a denoiser as shares of the matrix peak, and what changes them."""

import contextlib
import dataclasses
import functools
import inspect
import math
from typing import Any, Literal, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.layout import Format, Layout
from jaxtyping import Array
from ml_collections import ConfigDict

from experiments import build
from experiments.benchmarks.checks import cost
from experiments.benchmarks.device.device_profile import profile
from experiments.benchmarks.device.matrix_peak import matrix_peak
from experiments.benchmarks.device.timing import median_seconds
from lgd import training
from lgd.denoisers import NetworkDenoiser, layers
from lgd.denoisers.layers import Remat
from lgd.machinery import parallel
from lgd.types import Batch, Params, PRNGKey

NUM_CLASSES = 1000
STEPS = 5  # timed together, as a training runs: the next is sent before one has ended
Backend = Literal["cudnn", "xla"]
CALLS = 3  # that a step on an image counts as: forward, and backward as two


@dataclasses.dataclass(frozen=True)
class Variant:
    """How a training step is made.

    attention: cuDNN's where `layers.cudnn_supports` it, or XLA's operations.
    layouts: of parameters and moments in memory: row-major, or what the compiler prefers.
    """

    batch: int
    remat: Remat = "none"
    attention: Backend = "cudnn"
    donate: bool = True
    layouts: Literal["default", "compiler"] = "default"


def variants(batch: int) -> dict[str, Variant]:
    """Return variants: one change at a time, and a larger batch that recomputing makes room for."""
    base = Variant(batch)
    change = functools.partial(dataclasses.replace, base)
    return {
        f"batch {batch}": base,
        f"batch {batch // 2}": change(batch=batch // 2),
        f"batch {2 * batch}": change(batch=2 * batch),
        f"batch {4 * batch}": change(batch=4 * batch),
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
        """Return the denoiser, with what it recomputes."""
        config = ConfigDict(self.config)
        config.denoiser.remat = remat
        return build.network_denoiser(config, NUM_CLASSES)

    def params(self) -> Params:
        """Return random parameters, no zeros: products of zeros run faster."""
        rng = np.random.default_rng(0)

        def draw(leaf: jax.ShapeDtypeStruct) -> Array:
            size = math.prod(leaf.shape[:-1]) ** -0.5 if leaf.shape[1:] else 0.1
            return jnp.asarray(size * rng.standard_normal(leaf.shape, np.float32))

        return jax.tree.map(draw, self.param_shapes)

    @functools.cached_property
    def param_shapes(self) -> Params:
        """ShapeDtypeStructs of `params`."""
        return jax.eval_shape(lambda: self.denoiser().init(jax.random.key(0), self.shape))

    def batch(self, size: int) -> Batch:
        """Return random images of all classes."""
        x0 = jax.random.normal(jax.random.key(2), (size, *self.shape))
        return Batch(x0, jnp.arange(size, dtype=jnp.int32) % NUM_CLASSES)

    def case(self, batch: int, groups: int, remat: Remat = "none") -> cost.Case:
        """Return the case that the other benchmarks measure."""
        return cost.Case(self.denoiser(remat), self.params(), self.shape, batch, groups)

    @functools.cached_property
    def call_flops(self) -> float:
        """FLOPs of one call for one image."""
        return cost.call_flops(cost.Case(self.denoiser(), self.param_shapes, self.shape, 1, 1))


class Program(NamedTuple):
    """A training step before it is compiled; shapes: of state, frozen parameters, batch and key."""

    step: Any
    shapes: tuple[Any, ...]
    optimizer: training.Optimizer


def training_program(network: Network, variant: Variant) -> Program:
    """Return the step of `training.make_step`, without the promises about sharding and donation."""
    optimizer = build.denoiser_optimizer(network.config)
    denoiser, loss = network.denoiser(variant.remat), build.denoising_loss(network.config)

    def train_loss(params: Params, frozen: tuple, batch: Batch, key: PRNGKey) -> Any:
        return loss(key, denoiser, params, batch.x0, batch.c), {}

    state = jax.eval_shape(lambda p: training.init_state(p, optimizer), network.param_shapes)
    batch = jax.eval_shape(lambda: network.batch(variant.batch))
    key = jax.eval_shape(lambda: jax.random.key(0))
    mesh = parallel.make_mesh(1)
    step = training.make_step(train_loss, optimizer, state, (), batch, mesh=mesh)
    return Program(inspect.unwrap(step), (state, (), batch, key), optimizer)


def compiled_step(program: Program, variant: Variant, shapes: tuple[Any, ...]) -> Any:
    """Return the program compiled, for the device that the shapes name, if they do."""
    donated = (0,) if variant.donate else ()
    with attention_of(variant.attention):
        if variant.layouts == "default":
            return jax.jit(program.step, donate_argnums=donated).lower(*shapes).compile()
        free = jax.jit(program.step, in_shardings=(Format(Layout.AUTO), None, None, None))
        formats = free.lower(*shapes).compile().input_formats[0][0]
        preferred = jax.jit(
            program.step,
            in_shardings=(formats, None, None, None),
            out_shardings=(formats, None),
            donate_argnums=donated,
        )
        return preferred.lower(*shapes).compile()


def attention_of(backend: Backend) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which programs are traced to attend by this back-end."""
    if backend == "cudnn":
        return contextlib.nullcontext()
    return mock.patch.object(layers, "cudnn_supports", return_value=False)


def planned_bytes(compiled: Any) -> int:
    """Return the device memory of arguments, of results that are none, and of what lies between."""
    memory = compiled.memory_analysis()
    return int(
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )


class TrainingStep:
    """A compiled step and its state; calling it takes `STEPS` steps."""

    def __init__(self, network: Network, variant: Variant) -> None:
        program = training_program(network, variant)
        self.compiled = compiled_step(program, variant, program.shapes)
        state = training.init_state(network.params(), program.optimizer)
        self._state = jax.device_put(state, self.compiled.input_formats[0][0])
        self._batch, self._key = network.batch(variant.batch), jax.random.key(2)

    def __call__(self) -> Any:
        """The info of the last step."""
        for _ in range(STEPS):
            self._state, info = self.compiled(self._state, (), self._batch, self._key)
        return info


def share(
    network: Network, variant: Variant, *, matrices: tuple[int, ...], rounds: int
) -> dict[str, float]:
    """Return seconds of a step, its share of the peak measured right before, and planned bytes.

    The work of an image is that of `CALLS` calls; what is recomputed is time and no work.
    """
    peak = matrix_peak(matrices, rounds)["best"]
    step = TrainingStep(network, variant)
    seconds = median_seconds(step, rounds) / STEPS
    return {
        "seconds": seconds,
        "images_per_second": variant.batch / seconds,
        "share": CALLS * network.call_flops * variant.batch / seconds / peak,
        "peak": peak,
        "planned_bytes": planned_bytes(step.compiled),
    }


def step_profile(network: Network, variant: Variant) -> dict[str, Any]:
    """Return where the time of a step goes, see `device_profile.profile`."""
    step = TrainingStep(network, variant)
    return profile(step, step.compiled.as_text(), rounds=2)
