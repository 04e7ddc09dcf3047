"""What tests/test_processes.py runs in one process, and here in each of two.

    python -m tests.two_processes HOST:PORT PROCESS_ID FOLDER

Trains with checkpoints, resumes, learns guidance, samples; process 0 writes FOLDER/results.npz.
Then a signal to process 1 stops both; at last process 1 fails in the middle of a training.
"""

import os
import signal
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgd import guidance, learn_guidance, schedules, training
from lgd.data import labelled, pipeline
from lgd.denoisers import from_function
from lgd.evaluation import Generator
from lgd.machinery import parallel, processes, progress, stopping
from lgd.machinery.checkpoint import CheckpointStore
from lgd.machinery.digests import of_tree
from lgd.metrics.energy import ClassEnergyDistance
from lgd.objectives import Trajectory

WIDTH = 256  # so that a kernel is large enough to be split
FLOW = schedules.rectified_flow()


def data():
    x = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    return labelled(x, (np.arange(40) % 2).astype(np.int32))


def predict(params, x_t, t, c):
    return jnp.tanh(x_t @ params["in"] + t[:, None]) @ params["out"] * (1 + c[:, None])


NETWORK = from_function(predict, schedule=FLOW, kind="velocity", null=2)


def network_params(width=WIDTH):
    rng = np.random.default_rng(1)
    sizes = {"in": (2, width), "hidden": (width, width), "out": (width, 2)}
    draws = {name: rng.normal(size=size) / 8.0 for name, size in sizes.items()}
    return {name: draw.astype(np.float32) for name, draw in draws.items()}


def loss(params, frozen, batch, key):
    x = batch.x0 + 0.1 * jax.random.normal(key, batch.x0.shape)
    hidden = jnp.tanh(jnp.tanh(x @ params["in"]) @ params["hidden"])
    target = x[:, :1] * frozen["out"].sum() + batch.c[:, None]
    return jnp.mean((hidden @ params["out"] - target) ** 2), {}


def train(mesh, *, store=None, seen=None, fails_at=None, signalled_at=None, num_steps=4):
    rows = parallel.local_rows(8, mesh)
    batches = pipeline.examples(data(), 8, seed=0, rows=rows)

    def batch(step):
        if step == fails_at:
            raise RuntimeError("no data")
        if step == signalled_at:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(3)  # JAX looks for it once a second
        if seen is not None:
            seen.append(len(batches(step).x0))
        return batches(step)

    return training.fit(
        jax.random.key(0),
        loss,
        network_params(),
        frozen=network_params(),
        batches=batch,
        trainer=training.Trainer(
            optimizer=training.Optimizer(num_steps=num_steps, learning_rate=1e-3),
            mesh=mesh,
            store=store,
            save_every=2,
        ),
    )


def stop(mesh, store):
    """A signal to process 1 alone stops both after one step, which is saved."""
    at = 3 if jax.process_index() == 1 else None
    with stopping.on_signals(), pytest.raises(stopping.Stopped) as caught:
        train(mesh, store=store, signalled_at=at, num_steps=50)
    step = int(caught.value.state.step)
    assert 3 <= step < 50
    assert store.steps()[-1] == step
    print(f"stopped {step}")


def learn(mesh):
    """With a reward that closes over an array, as classifiers do."""
    target = jnp.asarray([1.0, -1.0])
    reward = {
        "reward": lambda x, c: -jnp.sum((x - target[None]) ** 2, axis=-1),
        "reward_weight": 0.1,
    }
    return learn_guidance(
        jax.random.key(1),
        NETWORK,
        network_params(),
        data().x,
        data().c,
        objective=Trajectory(times=(1.0, 0.5, 0.0), num_particles=6, num_targets=8, **reward),
        start={"low": guidance.constant(0.2), "high": guidance.constant(3.0)},
        trainer=training.Trainer(
            optimizer=training.Optimizer(num_steps=2, learning_rate=0.02), batch_size=8, mesh=mesh
        ),
    )


def generate(mesh, per_class):
    generator = Generator(
        denoiser=NETWORK,
        params=network_params(),
        shape=(2,),
        conditions=np.arange(2, dtype=np.int32),
        times=schedules.uniform_times(3),
        churn=1.0,
        mesh=mesh,
    )
    return generator(guidance.constant(0.5), per_class, seed=5)


def results(folder):
    """Everything that must not depend on the number of processes; four devices, split two ways."""
    by_size, by_row = parallel.make_mesh(1, 4), parallel.make_mesh(2, 2)
    seen = []
    with CheckpointStore(folder / "store") as store:
        state = train(by_size, store=store, seen=seen)
    with CheckpointStore(folder / "store") as store:
        resumed = train(by_size, store=store)
    assert set(seen) == {8 // jax.process_count()}  # rows that this process read
    local = [shard.data.shape for shard in state.params["hidden"].addressable_shards]
    assert local == [(WIDTH // 4, WIDTH)] * (4 // jax.process_count())
    assert of_tree(resumed) == of_tree(state)
    samples, guided = generate(by_row, 3), learn(by_row)  # 6 samples on 4 devices
    return {
        "hidden": processes.to_host(state.params["hidden"]),
        "ema": processes.to_host(state.ema["out"]),
        "samples": np.asarray(samples),
        "distance": np.asarray(ClassEnergyDistance(data(), 2)(samples)),
        "start": np.asarray(guided.start),
        "omega": np.asarray(
            guidance.on_grid(guided.omega_fn, jnp.linspace(1, 0, 3), jnp.arange(2))
        ),
    }


def check_messages():
    """What process 0 finds out, every process knows."""
    found = {"step": 3, "names": ["a", "ü"], "long": "x" * 100_000}
    nested = processes.from_main(lambda: processes.from_main(lambda: found))
    assert nested == found
    assert processes.from_main(lambda: jax.process_index()) == 0
    sent = [np.asarray([-0.0, np.nan], np.float32), np.zeros((0, 3), np.int8)]
    received = processes.broadcast(sent if processes.is_main_process() else [], sent)
    assert [array.tobytes() for array in received] == [array.tobytes() for array in sent]
    told = processes.gather("" if processes.is_main_process() else "ü" * 700)
    assert told == ["", "ü" * 700]
    expected = ZeroDivisionError if processes.is_main_process() else processes.MainProcessError
    with pytest.raises(expected, match="division by zero"):
        processes.from_main(lambda: 1 / 0)


def main(coordinator, process_id, folder):
    processes.HEARTBEAT_SECONDS, progress.FIRST_SECONDS = 10, 0.0
    processes.initialize(coordinator, 2, int(process_id))
    with processes.leaving_at_once():
        check_messages()
        found = results(Path(folder))
        if processes.is_main_process():
            np.savez(Path(folder) / "results.npz", **found)
        with CheckpointStore(Path(folder) / "stopped") as store:
            stop(parallel.make_mesh(), store)
        print(f"done {jax.process_index()}")
        train(parallel.make_mesh(), fails_at=2 if jax.process_index() == 1 else None)


if __name__ == "__main__":
    main(*sys.argv[1:])
