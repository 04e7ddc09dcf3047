"""Library and launcher in a notebook: no flags parsed, cells run again, the stop button."""

import os
from pathlib import Path

import nbformat
import pytest

from experiments.faults.bench import TINY
from experiments.notebooks.execute import execute

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]

STAGES = """
import importlib

from experiments import config as configs
from experiments import pipeline, run

importlib.reload(run)  # a cell that imports it, run again
config = configs.load(ROOT + "/configs/mixture.py", TINY)
for _ in range(2):
    pipeline.run(config, "run", ["denoiser"])
"""

LEARN = """
import os
import signal

import jax
import numpy as np

import lgd
from lgd.machinery.checkpoint import CheckpointStore
from lgd.machinery.digests import of_tree

denoiser = lgd.denoisers.from_function(
    lambda params, x_t, t, c: params * x_t + 0.3 * c[:, None],
    schedule=lgd.schedules.rectified_flow(), kind="velocity", null=2,
)
x0 = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)

def learn(folder, on_step=None):
    with CheckpointStore(folder) as store:
        return lgd.learn_guidance(
            jax.random.key(0), denoiser, np.float32(0.5), x0, np.arange(40) % 2,
            objective=lgd.objectives.Trajectory(
                times=(1.0, 0.5, 0.0), num_particles=4, num_targets=4
            ),
            start={"one": lgd.guidance.constant(1.0)},
            trainer=lgd.training.Trainer(
                optimizer=lgd.training.Optimizer(num_steps=6, learning_rate=0.1),
                store=store, on_step=on_step, progress=False, check=False,
            ),
        )
"""

STOP = """
def press_stop(step, ema):
    if step == 3:
        os.kill(os.getpid(), signal.SIGINT)

try:
    learn("interrupted", press_stop)
except KeyboardInterrupt as stop:
    print("kept step", int(stop.state.step))
"""

AGAIN = """
one, other = learn("interrupted"), learn("whole")
assert of_tree(one.params) == of_tree(other.params)
assert of_tree(learn("interrupted").params) == of_tree(one.params)
print("the same")
"""


def test_cells_are_interrupted_and_run_again(tmp_path):
    names = f"ROOT, TINY = {str(ROOT)!r}, {TINY!r}"
    cells = [nbformat.v4.new_code_cell(code) for code in (names, STAGES, LEARN, STOP, AGAIN)]
    path = tmp_path / "use.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    settings = {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    notebook = execute(path, env=os.environ | settings | {"IPYTHONDIR": str(tmp_path)})
    said = [
        "".join(output.get("text", "") for output in cell.outputs) for cell in notebook.cells[-2:]
    ]
    assert said == ["kept step 3\n", "the same\n"]
    assert (tmp_path / "run" / "params" / "denoiser.safetensors").exists()
