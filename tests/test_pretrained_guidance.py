"""A pipeline of diffusers goes through every stage of a run, and is bound to it."""

import csv
import json
from argparse import Namespace

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("diffusers")

import lgd
from experiments import build, pipeline
from experiments import config as configs
from experiments.exchange.drawn import STUDY
from experiments.workdir import WorkdirError
from lgd.exchange.diffusers import tiny

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("quick_compilation"),
    pytest.mark.filterwarnings("ignore"),  # of PyTorch, torchax and diffusers about themselves
]

CLASSES = ("boots", "shirts", "bags")
FIELDS = (
    "data.size=8", "data.num_train=48", "data.num_validation=24", "data.num_test=24",
    "denoiser.class_ids=7,3,11", "sampling.num_steps=3", "guidance.num_snapshots=1",
    "guidance.methods=('self_consistency','trajectory_features')",
    "guidance.one_step.num_steps=2", "guidance.one_step.batch_size=16",
    "guidance.trajectory.num_steps=2", "guidance.trajectory.num_particles=4",
    "guidance.trajectory.num_targets=4", "guidance.trajectory.model=network",
    "evaluation.num_samples=24", "evaluation.num_screening=21", "evaluation.num_finalists=1",
    "evaluation.test_seeds=2", "evaluation.families=('constant',)",
    "evaluation.constant_weights=(0.0,0.5,1.0)", "classifier.num_steps=2",
    "classifier.num_features=4", "features.num_features=4",
)  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("pretrained")
    tiny.class_conditional().save_pretrained(root / "pipeline")
    rng = np.random.default_rng(0)
    for k, name in enumerate(CLASSES):
        (root / "images" / name).mkdir(parents=True)
        for i in range(40):
            pixels = rng.integers(60 * k, 60 * k + 100, size=(8, 8, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / "images" / name / f"{i}.png")
    return root


def config_of(root, *more):
    given = [f"denoiser.pipeline={root / 'pipeline'}", f"data.path={root / 'images'}"]
    return configs.load("configs/pretrained.py", [*given, *FIELDS, *more])


def test_guidance_is_learned_compared_and_exported(folders):
    config, workdir = config_of(folders), folders / "run"
    stages = ["denoiser", "guidance", "evaluate", "report"]
    pipeline.run(config, str(workdir), stages)
    results = json.loads((workdir / "results.json").read_text())
    methods = ["unguided", "constant", "learned:self_consistency", "learned:trajectory_features"]
    assert [row["method"] for row in results["rows"]] == methods
    assert (workdir / "report" / "samples.png").is_file()
    guidance = lgd.load(workdir / "guidance" / "self_consistency.safetensors")
    times = np.asarray(build.times(config))
    scales = json.loads((workdir / "guidance" / "self_consistency.scales.json").read_text())
    assert sorted(scales) == sorted(CLASSES)
    expected = 1.0 + np.asarray(guidance.table(times, np.arange(3)))
    written = np.array([scales[name] for name in sorted(CLASSES)]).T
    np.testing.assert_allclose(written, expected, atol=1e-5)
    with open(workdir / "guidance" / "self_consistency.csv") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 3 * 3
    pipeline.run(config, str(workdir), stages)  # finds all done
    drawn = STUDY.measure(Namespace(workdir=workdir, seeds=2))
    assert [row["method"] for row in drawn["rows"]] == methods
    for row, published in zip(drawn["rows"], results["rows"], strict=True):
        ours = published["metrics"]["frechet_distance"]["values"]
        np.testing.assert_allclose(row["own sampler"]["values"], ours, rtol=1e-5)
        assert np.isfinite(row["frechet_distance"]["values"]).all()
        assert row["speed"]["mean"] > 0.0
    assert {each["against"] for each in drawn["differences"]} <= {"unguided", "constant"}
    assert STUDY.figures(drawn)
    other = tiny.randomised(tiny.dit(), seed=1)
    changed = tiny.class_conditional()
    changed.register_modules(transformer=other)
    changed.save_pretrained(folders / "other")
    moved = config_of(folders, f"denoiser.pipeline={folders / 'other'}")
    with pytest.raises(WorkdirError, match="pipeline sha256"):
        pipeline.run(moved, str(workdir), stages)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("denoiser.pipeline=", "expected a folder for denoiser.level pretrained, got ''"),
        ("denoiser.level=under", "expected none unless denoiser.level pretrained"),
        ("data.name=mixture", "pretrained: images only"),
    ],
)
def test_fields_that_do_not_fit_are_refused(folders, field, message):
    with pytest.raises(configs.ConfigError, match=message):
        config_of(folders, field)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("denoiser.pipeline=/nowhere", "expected a folder with model_index.json"),
        ("denoiser.class_ids=1,2", "denoiser.class_ids: expected 3 or none, got 2"),
    ],
)
def test_pipelines_that_do_not_fit_are_refused(folders, tmp_path, field, message):
    with pytest.raises(pipeline.MisfitError, match=message):
        pipeline.run(config_of(folders, field), str(tmp_path / "run"), ["denoiser"])


def captioned(root):
    """Images whose captions tell their brightness, and a pipeline that takes texts."""
    tiny.with_texts().save_pretrained(root / "pipeline")
    rng, lines = np.random.default_rng(0), []
    (root / "images").mkdir()
    for number in range(60):
        pixels = rng.integers(4 * number, 4 * number + 16, size=(8, 8, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(root / "images" / f"{number}.png")
        lines.append(json.dumps({"file_name": f"{number}.png", "text": f"a {number // 2}"}))
    (root / "images" / "metadata.jsonl").write_text("\n".join(lines))
    return root


OF_CAPTIONS = (
    "data.name=captions", "evaluation.features=efficientnet", "denoiser.class_ids=",
    "data.num_train=20", "data.num_validation=16", "data.num_test=16",
    "guidance.methods=('self_consistency',)", "guidance.start=init",
    "evaluation.num_samples=32",
)  # fmt: skip


EVERY_OBJECTIVE = (
    "guidance.methods=('self_consistency','trajectory')", "guidance.start=best",
)  # fmt: skip


@pytest.mark.hour
@pytest.mark.parametrize("fields", [(), EVERY_OBJECTIVE])
def test_guidance_is_learned_of_captions(tmp_path, fields):
    pytest.importorskip("efficientnet_lite_pytorch")
    root = captioned(tmp_path)
    config, workdir = config_of(root, *OF_CAPTIONS, *fields), root / "run"
    stages = ["denoiser", "guidance", "evaluate", "report"]
    pipeline.run(config, str(workdir), stages)
    results = json.loads((workdir / "results.json").read_text())
    learned = [f"learned:{method}" for method in config.guidance.methods]
    assert [row["method"] for row in results["rows"]] == ["unguided", "constant", *learned]
    assert {row["num_samples"] for row in results["rows"]} == {32}
    assert len(list((root / "images" / "lgd-embeddings").iterdir())) > 10
    scales = json.loads((workdir / "guidance" / "self_consistency.scales.json").read_text())
    assert all(name.startswith("a ") for name in scales)


def test_captions_of_a_pipeline_with_labels_are_refused(folders, tmp_path):
    root = captioned(tmp_path)
    fields = [f"denoiser.pipeline={folders / 'pipeline'}", *OF_CAPTIONS]
    with pytest.raises(configs.ConfigError, match="expected one of texts, got one that takes lab"):
        pipeline.run(config_of(root, *fields), str(tmp_path / "run"), ["denoiser"])


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (
            "evaluation.features=classifier",
            "expected evaluation.features efficientnet or inception",
        ),
        ("denoiser.level=under", "expected denoiser.level pretrained for captions"),
        ("fake_data=True", "expected no fake_data for captions"),
    ],
)
def test_fields_that_do_not_fit_captions_are_refused(folders, field, message):
    with pytest.raises(configs.ConfigError, match=message):
        config_of(folders, *OF_CAPTIONS, field)
