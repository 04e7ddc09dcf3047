"""Weights that are shipped are those of a published run, and give its rows again."""

import hashlib
from argparse import Namespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import build, build_guidance
from experiments import config as configs
from experiments.publish import markdown, tables, weights
from experiments.stages import evaluate, export, select
from experiments.studies import pretrained
from experiments.workdir import Workdir, WorkdirError, read_json, write_json
from lgd import guidance as schedules
from lgd import omega, sampling
from lgd.evaluation import Journal, Selected
from lgd.machinery import storage
from tests import untrained

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]

METHOD, STEP = "trajectory", 10
NAN = float("nan")


@pytest.fixture(scope="module")
def run(quick_compilation, tmp_path_factory):
    """A folder as a run leaves it, of networks that nobody trained."""
    config = configs.load("configs/smoke.py", ["classifier.num_features=5"])
    workdir, dataset = untrained.image_run(tmp_path_factory.mktemp("run"), config)
    table = build_guidance.omega_model(config, METHOD, dataset)
    learned = table.tabulate(schedules.limited_interval(3.0, 0.2, 0.8), np.arange(10))
    guided = omega.Guidance(table, learned, METHOD, schedule=build.schedule(config))
    rows = {
        "unguided": Selected({}, schedules.constant(0.0), NAN),
        "learned:self_consistency": Selected({"step": 5}, schedules.constant(1.0), NAN),
        f"learned:{METHOD}": Selected({"step": STEP}, guided, NAN),
    }
    selected = [select.Row(name, None, each) for name, each in rows.items()]
    provenance = evaluate.provenance(config, "a command")
    export.save_guidance(config, workdir, dataset, selected[-1:], provenance)
    measured, _ = evaluate.measure_rows(
        config,
        dataset,
        evaluate.make_generator(config, workdir, dataset),
        evaluate.make_measure(config, workdir, dataset),
        selected,
        Journal(workdir.path / "measured.jsonl"),
    )
    results = evaluate.provenance(config, "a command") | {"rows": measured}
    workdir.write_json(workdir.path / "results.json", results)
    return workdir.path


@pytest.fixture
def shipped(run, tmp_path, monkeypatch):
    """The run, published as digits-tiny, and its weights, shipped as tiny."""
    monkeypatch.setattr(weights, "WEIGHTS", tmp_path / "weights")
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    write_json(tmp_path / "digits-tiny.json", read_json(run / "results.json"))
    weights.pack(run, "tiny", "digits-tiny", METHOD)
    return tmp_path / "weights" / "tiny"


def measured(workdir):
    return pretrained.measure(Namespace(workdir=workdir, weights="tiny", data=None))


def test_weights_that_are_shipped_give_the_published_rows_again(run, shipped, tmp_path):
    found = measured(tmp_path / "new")
    each = {name: table["rows"] for name, table in found["tables"].items()}
    names = [row["method"] for row in each["here"]]
    assert names == ["unguided", f"learned:{METHOD}"]
    assert [row["method"] for row in each["published"]] == names
    for here, published in zip(*each.values(), strict=True):
        for name, metric in published["metrics"].items():
            np.testing.assert_allclose(here["metrics"][name]["values"], metric["values"], rtol=1e-6)
    # What has been measured is read again, and other parameters are not overwritten.
    assert measured(tmp_path / "new") == found
    assert markdown.everything(found).startswith("here:\n\n| method |")
    (tmp_path / "new" / "params" / "denoiser.safetensors").write_bytes(b"of another run")
    with pytest.raises(WorkdirError, match=r"denoiser.safetensors: expected what this run wrote"):
        measured(tmp_path / "new")


def test_weights_are_read_without_data(run, shipped, monkeypatch):
    monkeypatch.setattr(build, "dataset", lambda config: pytest.fail("data were read"))
    found = pretrained.load("tiny")
    config = configs.from_dict(read_json(run / "config.json"))
    like = jax.eval_shape(
        lambda: build.network_denoiser(config, 10).init(jax.random.key(0), (8, 8, 1))
    )
    expected = Workdir(run, config).load_params("denoiser", like)
    jax.tree.map(np.testing.assert_array_equal, found.params, expected)
    assert found.shape == (8, 8, 1)
    assert len(found.class_names) == 10
    omegas = schedules.on_grid(found.guidance, found.times, jnp.arange(10))
    assert float(omegas.max()) == pytest.approx(3.0)


@pytest.mark.parametrize("part", ["denoiser", "guidance", "classifier"])
def test_another_file_than_the_published_one_is_refused(shipped, tmp_path, part):
    file = shipped / f"{part}.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match=rf"{part}.safetensors: expected .*published"):
        measured(tmp_path / "new")


def test_other_test_images_and_unknown_names_are_refused(shipped, tmp_path):
    manifest = read_json(shipped / "manifest.json")
    write_json(shipped / "manifest.json", manifest | {"test_sha256": "0" * 64})
    with pytest.raises(WorkdirError, match="expected the test images of the published table"):
        measured(tmp_path / "new")
    with pytest.raises(FileNotFoundError, match="expected one of tiny, got 'huge'"):
        pretrained.load("huge")


def test_settings_that_came_after_a_result_have_their_defaults(run):
    values = read_json(run / "config.json")
    del values["denoiser"]["mlp"]
    values["denoiser"]["remat"] = False
    with pytest.raises(configs.ConfigError, match=r"denoiser\.mlp(.|\n)*denoiser\.remat"):
        configs.from_dict(values)
    found = configs.from_dict(values, is_older=True).denoiser
    assert (found.mlp.gain, found.remat) == (False, "none")


# What is shipped


@pytest.fixture(scope="module")
def fashion():
    return pretrained.load()


def test_files_shipped_are_the_ones_pinned_and_small():
    folder = weights.WEIGHTS / pretrained.DEFAULT
    manifest = pretrained.read_manifest(pretrained.DEFAULT)
    contents = {part: (folder / f"{part}.safetensors").read_bytes() for part in manifest["sha256"]}
    found = {part: hashlib.sha256(content).hexdigest() for part, content in contents.items()}
    assert found == manifest["sha256"]
    assert sum(map(len, contents.values())) < 10_000_000


def test_samples_of_the_weights_shipped_are_of_the_classes_asked_for(fashion):
    config = pretrained._config(pretrained.read_manifest(pretrained.DEFAULT))
    classifier = build.classifier(config.classifier, 10)
    like = jax.eval_shape(lambda: classifier.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1))))
    file = weights.WEIGHTS / pretrained.DEFAULT / "classifier.safetensors"
    params = storage.load_params(file, like)
    c = jnp.repeat(jnp.arange(10), 8)

    @jax.jit
    def right(omegas):
        x = sampling.sample(
            jax.random.key(3),
            fashion.denoiser,
            fashion.params,
            c,
            guidance=omegas,
            shape=fashion.shape,
            times=fashion.times,
        ).x0
        return jnp.mean(classifier.apply(params, x)[0].argmax(axis=1) == c)

    omegas = schedules.on_grid(fashion.guidance, fashion.times, c)
    guided, plain = right(omegas), right(jnp.zeros_like(omegas))
    assert guided >= 0.85
    assert guided > plain
