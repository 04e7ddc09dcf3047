"""Whatever takes a path knows the home folder and refuses what is not on this machine."""

import ast
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

import lgd
from lgd import gram, omega, report
from lgd.data import captions, fashion_mnist, image_files, image_folder, mnist, npz, tfds_records
from lgd.denoisers import from_function
from lgd.evaluation.comparison import Comparison
from lgd.evaluation.journal import Journal
from lgd.exchange import frozen
from lgd.exchange import schedules as schedule_files
from lgd.exchange.diffusers import prompts
from lgd.gram import store
from lgd.machinery import digests, files, json_file, paths, storage
from lgd.machinery.checkpoint import CheckpointStore
from lgd.metrics import inception, reference
from lgd.metrics.inception import torch_file, weights
from lgd.plots import save as save_figure

ROOT = Path(__file__).resolve().parents[1]
URLS = ("gs://bucket/a", "s3://bucket/a", "file:///tmp/a", Path("gs://bucket/a"))
TABLE = omega.Guidance(omega.StepTable(times=(1.0, 0.0)), {"values": jnp.array([[2.0]])}, "init")
ARRAYS = {"a": np.ones(2, np.float32)}
FLOW = lgd.schedules.rectified_flow()
MODEL = from_function(lambda params, x, t, c: x, kind="x0", schedule=FLOW, null=2)
SPLIT = lgd.data.labelled(np.zeros((8, 2), np.float32), np.zeros(8, np.int32))


def comparison(path):
    empty = Comparison.__new__(Comparison)
    Comparison.save(empty, path)


def collect(path):
    trainer = lgd.training.Trainer(batch_size=8, progress=False, check=False)
    gram.collect(path, MODEL, {}, SPLIT, num_examples=8, data_name="a", trainer=trainer)


def measured(path):
    network = reference.FeatureNetwork(lambda x: x, {})
    reference.reference(path, network, SPLIT, 1)


TAKERS = {  # by module and function: all of the library that take a path
    "data/fashion_mnist.load": lambda path: fashion_mnist.load(path),
    "data/image_files.read": lambda path: image_files.read(path, size=(2, 2), num_classes=2),
    "data/image_files.read_npz": image_files.read_npz,
    "data/image_folder.load": lambda path: image_folder.load(path, 1, 1, 1, size=2),
    "data/mnist.load": lambda path: mnist.load(path),
    "data/npz.load": lambda path: npz.load(path, 1, 1, 1),
    "data/tfds_records.load": lambda path: tfds_records.load(path, 1, 1, 1),
    "evaluation/comparison.html": Comparison.__new__(Comparison).html,
    "evaluation/comparison.save": comparison,
    "evaluation/journal.__init__": Journal,
    "exchange/diffusers/load.load": lambda path: lgd.exchange.diffusers.load(path),
    "exchange/diffusers/prompts.__init__": lambda path: prompts.Prompts(None, lambda: {}, path),
    "exchange/files.load": lgd.load,
    "exchange/files.save": lambda path: lgd.save(TABLE, path),
    "exchange/frozen.freeze": lambda path: frozen.freeze(path, MODEL, {}, shape=(2,), c=SPLIT.c),
    "exchange/frozen.thaw": frozen.thaw,
    "exchange/schedules.write": lambda path: schedule_files.write(path, []),
    "gram/collect.collect": collect,
    "gram/store.folder_of": store.folder_of,
    "gram/store.is_complete": gram.is_complete,
    "gram/store.read": gram.read,
    "machinery/checkpoint.__init__": CheckpointStore,
    "machinery/digests.of_file": digests.of_file,
    "data/captions.load": lambda path: captions.load(path, 1, 1, 1, size=4, encode=len),
    "machinery/files.opened": lambda path: files.opened(path, "a file"),
    "machinery/files.output": files.output,
    "machinery/files.read": lambda path: files.read(path, "a file"),
    "machinery/json_file.read": lambda path: json_file.read(path, "a file"),
    "machinery/paths.local": paths.local,
    "machinery/storage.load_arrays": lambda path: storage.load_arrays(path, of="a test"),
    "machinery/storage.load_params": lambda path: storage.load_params(path, ARRAYS),
    "machinery/storage.save_params": lambda path: storage.save_params(path, ARRAYS),
    "metrics/inception/torch_file.read": torch_file.read,
    "metrics/inception/weights.convert": lambda path: weights.convert(path, "out"),
    "metrics/inception/weights.load": lambda path: inception.load(path, sha256=""),
    "metrics/reference.reference": measured,
    "plots/__init__.save": lambda path: save_figure(Figure(), path),
    "report/page.write": lambda path: report.write(report.Page.__new__(report.Page), path),
}
ONLY_NAMED = {"data/splits", "data/faults"}  # paths that messages name; the twin of `paths.local`


def takers():
    """Functions of the library with an argument that is a path of a user."""
    for file in sorted((ROOT / "lgd").rglob("*.py")):
        module = str(file.relative_to(ROOT / "lgd").with_suffix(""))
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.FunctionDef) or module in ONLY_NAMED:
                continue
            public = not node.name.startswith("_") or node.name == "__init__"
            texts = [ast.unparse(a.annotation) for a in node.args.args if a.annotation]
            if public and any("str | Path" in text or "PathLike" in text for text in texts):
                yield f"{module}.{node.name}"


def test_everything_that_takes_a_path_is_tested():
    assert set(takers()) <= set(TAKERS)


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("name", TAKERS)
def test_what_is_not_on_this_machine_is_refused_at_once(name, url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ValueError, RuntimeError), match="expected a local path, got a URL"):
        TAKERS[name](url)
    assert not list(tmp_path.iterdir())


def test_the_home_folder_is_known(tmp_path, monkeypatch):
    """By what writes; what reads says where it looked."""
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    lgd.save(TABLE, "~/runs/guidance.safetensors")
    storage.save_params("~/runs/params.safetensors", ARRAYS)
    schedule_files.write("~/runs/schedules.json", [])
    save_figure(Figure(figsize=(1, 1)), "~/runs/figure.png")
    Journal("~/runs/journal.jsonl")("a", lambda: 1)
    with CheckpointStore("~/store") as checkpoints:
        checkpoints.save(1, ARRAYS)
    collect("~/statistics")
    assert gram.is_complete("~/statistics")
    assert lgd.load("~/runs/guidance.safetensors").start == "init"
    left = {path.name for path in (home / "runs").iterdir()}
    names = {"guidance.safetensors", "params.safetensors", "schedules.json", "figure.png"}
    assert left == names | {"journal.jsonl"}
    assert {path.name for path in home.iterdir()} == {"runs", "store", "statistics"}
    for name in ("data/image_folder.load", "data/npz.load", "data/mnist.load"):
        with pytest.raises(ValueError, match=f"{home}/none"):
            TAKERS[name]("~/none")
    assert not list(here.iterdir())


def test_a_colon_makes_no_url(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lgd.save(TABLE, "a:b/c.safetensors")
    assert os.path.exists("a:b/c.safetensors")
    assert jax.tree.leaves(lgd.load(Path("a:b/c.safetensors")).params)
