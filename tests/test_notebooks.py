"""The notebooks run from the first cell to the last, at a smaller size, and show what they say."""

import json
import os
import re
from pathlib import Path

import nbformat
import pytest

from experiments.notebooks.execute import FOLDER, execute

NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
GUIDE_2D = FOLDER / "01_learn_to_guide_2d.ipynb"
FIGURES = "image/png"


def outputs(notebook):
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def complaints(notebook):
    return [o for o in outputs(notebook) if o.output_type == "error" or o.get("name") == "stderr"]


def figures(notebook):
    return sum(FIGURES in output.get("data", {}) for output in outputs(notebook))


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The notebook run small, on one device, and the distances it found."""
    env = os.environ | {
        "LGD_NOTEBOOK_FAST": "1",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "",
        "IPYTHONDIR": str(tmp_path_factory.mktemp("jupyter")),
    }
    notebook = execute(GUIDE_2D, env=env, extra="import json; print(json.dumps(distances))")
    return notebook, json.loads(notebook.cells[-1].outputs[0].text)


@pytest.mark.slow
def test_notebook_runs_and_draws_its_figures(executed):
    notebook, _ = executed
    assert figures(notebook) == figures(nbformat.read(GUIDE_2D, as_version=4)) == 5
    assert not complaints(notebook)


@pytest.mark.slow
def test_learned_guidance_beats_none(executed):
    _, distances = executed
    mean = {name: sum(values) / len(values) for name, values in distances.items()}
    assert mean["learned:trajectory"] < 0.9 * mean["constant 0"]
    assert mean["learned:self_consistency"] < mean["constant 0"]
    assert abs(mean["real draws"]) < 0.2 * min(v for k, v in mean.items() if k != "real draws")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_notebook_is_executed_in_order_light_and_clean(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [cell.metadata for cell in notebook.cells if cell.metadata]
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert not complaints(notebook)
    assert path.stat().st_size < 600_000
    text = re.sub(r'"image/png": "[^"]*"', "", Path(path).read_text())
    assert not re.findall(r"/(?:home|root|tmp|work|Users)/\S*|https?://\S+", text)
