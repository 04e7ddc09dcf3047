"""State, one sharded jitted step, and the loop. Serves denoisers, classifiers and omega alike.

A loss is ``loss(params, frozen, batch, key) -> (scalar, info)``; ``batches(step)`` returns the
batch of a step, so that the step number is all there is to resume. Randomness of step i comes from
``fold_in(key, i)``.
"""

from lgd.training.loop import Batches, fit
from lgd.training.settings import Optimizer, Store, Trainer
from lgd.training.step import Loss, StepFn, TrainState, init_state, make_step

__all__ = [
    "Batches",
    "Loss",
    "Optimizer",
    "StepFn",
    "Store",
    "TrainState",
    "Trainer",
    "fit",
    "init_state",
    "make_step",
]
