"""Settings of a training: the optimizer, and how it runs."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import optax
from jax.sharding import Mesh

from lgd.machinery.arguments import (
    finite,
    flag,
    having,
    instance,
    positive_int,
    whole,
    wrong,
)
from lgd.machinery.digests import NO_RESULT
from lgd.types import Params, PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
    """Adam with clipping of the gradient's norm, warm-up, and a cosine decay to 0.

    ema_decay: of the parameters, bias-corrected by a warm-up ``min(decay, (1+i)/(10+i))``.
    clip: global norm of the gradient above which it is scaled down; 0: no clipping.
    max_skipped: so many steps in a row that are not finite end the training; fewer are skipped.
    """

    num_steps: int
    learning_rate: float = 1e-3
    warmup_steps: int = 0
    decay: bool = True
    clip: float = 1.0
    ema_decay: float = 0.999
    max_skipped: int = dataclasses.field(default=10, metadata=NO_RESULT)

    def __post_init__(self) -> None:
        positive_int("num_steps", self.num_steps)
        whole("warmup_steps", self.warmup_steps, low=0)
        for name in ("learning_rate", "clip", "ema_decay"):
            finite(name, getattr(self, name))
        flag("decay", self.decay)
        positive_int("max_skipped", self.max_skipped)
        if not self.warmup_steps < self.num_steps:
            raise ValueError(f"expected 0 <= warmup_steps < num_steps, got {self}")
        if not self.learning_rate > 0.0 or self.clip < 0.0 or not 0.0 <= self.ema_decay < 1.0:
            raise ValueError(
                f"expected learning_rate > 0, clip >= 0, ema_decay in [0, 1), got {self}"
            )

    def transformation(self) -> optax.GradientTransformation:
        """The optax transformation."""
        steps = self.num_steps - self.warmup_steps
        main = (
            optax.cosine_decay_schedule(self.learning_rate, steps)
            if self.decay
            else optax.constant_schedule(self.learning_rate)
        )
        warmup = optax.linear_schedule(0.0, self.learning_rate, max(self.warmup_steps, 1))
        rate = optax.join_schedules([warmup, main], [self.warmup_steps])
        clip = optax.clip_by_global_norm(self.clip) if self.clip else optax.identity()
        return _promoting(optax.chain(clip, optax.adam(rate)))


def _promoting(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """The transformation where JAX promotes no dtypes: optax multiplies floats and integers."""

    def update(updates: PyTree, state: PyTree, params: PyTree = None) -> tuple[PyTree, PyTree]:
        with jax.numpy_dtype_promotion("standard"):
            return inner.update(updates, state, params)

    return optax.GradientTransformation(inner.init, update)


@runtime_checkable
class Store(Protocol):
    """Where `fit` saves; `lgd.machinery.checkpoint.CheckpointStore` is one."""

    def save(self, step: int, state: PyTree, metadata: dict[str, Any] | None = None) -> None: ...
    def restore(self, like: PyTree) -> Any: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trainer:
    """How a training runs: settings that `learn_guidance`, `fit` and the Gram room share.

    Args:
      optimizer: None: what suits the model that is learned.
      batch_size: examples of a step. Objectives on groups draw ``conditions_per_step`` strata a
        step, or as many as fit, and take as many rounds of one group for each of these as fit, and
        at least one: below one round a smaller batch changes nothing, fewer strata do.
      mesh: devices, see `parallel.make_mesh`; None: one device for `learn_guidance`, all devices
        along "data" for `fit`.
      store: checkpoints, every ``save_every`` steps, at the end, and before `Stopped`.
      save_every: steps between checkpoints; 0: at the end only.
      log_every: steps between calls of ``on_log``; 0: at the end only.
      on_log: called with (step, info). Info has what is finite of the loss, its parts and the
        gradient's norm; and "skipped", once there are any.
      on_step: called with (step, EMA of the parameters) after every step; the next step donates
        these arrays, so copy what you keep.
      progress: show a bar.
      check: whether `learn_guidance` and `collect` look first, by a few calls of the model, for
        what `lgd.check` finds. What cannot work is an error, what is only suspicious a warning.
    """

    optimizer: Optimizer | None = None
    batch_size: int = 256
    mesh: Mesh | None = dataclasses.field(default=None, metadata=NO_RESULT)
    store: "Store | None" = dataclasses.field(default=None, metadata=NO_RESULT)
    save_every: int = dataclasses.field(default=0, metadata=NO_RESULT)
    log_every: int = dataclasses.field(default=10, metadata=NO_RESULT)
    on_log: Callable[[int, dict[str, float]], None] | None = dataclasses.field(
        default=None, metadata=NO_RESULT
    )
    on_step: Callable[[int, Params], None] | None = dataclasses.field(
        default=None, metadata=NO_RESULT
    )
    progress: bool = dataclasses.field(default=True, metadata=NO_RESULT)
    check: bool = dataclasses.field(default=True, metadata=NO_RESULT)

    def __post_init__(self) -> None:
        if self.optimizer is not None:
            instance(
                "optimizer", self.optimizer, Optimizer, "lgd.training.Optimizer(num_steps=200)"
            )
        positive_int("batch_size", self.batch_size)
        if self.mesh is not None:
            instance("mesh", self.mesh, Mesh, "lgd.machinery.parallel.make_mesh(1)")
        if self.store is not None:
            having("store", self.store, ("save", "restore"), "a store of checkpoints")
        for name in ("save_every", "log_every"):
            whole(name, getattr(self, name), low=0)
        for name in ("on_log", "on_step"):
            if getattr(self, name) is not None and not callable(getattr(self, name)):
                raise wrong(name, "a function", getattr(self, name))
        flag("progress", self.progress)
        flag("check", self.check)
