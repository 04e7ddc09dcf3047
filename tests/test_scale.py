"""Settings at the scale of the paper: what they say, on generated images and at a tiny size."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lgd
from experiments import build, fake, pipeline
from experiments import config as configs
from experiments.stages import denoiser, judges, measure
from experiments.workdir import Workdir
from lgd.data.dataset import FileImages
from lgd.metrics.frechet import frechet_distance, moments
from lgd.metrics.kid import kid
from lgd.metrics.reference import FeatureNetwork

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilation")]
WEIGHTS = ("evaluation.inception_path=missing.file", f"evaluation.inception_sha256={64 * '0'}")
MEASURED = {
    *("energy_distance", "frechet_distance", "kid", "precision", "recall", "inception_score"),
}
TINY = (
    "data.path=cifar10",
    "data.size=8",
    "denoiser.network=mlp",
    "denoiser.dtype=float32",
    "denoiser.remat=none",
    "denoiser.flip=False",
    "denoiser.width=8",
    "denoiser.depth=1",
    "denoiser.batch_size=8",
    "evaluation.sample_batch=16",
    "guidance.num_snapshots=1",
    "guidance.one_step.batch_size=8",
    "guidance.one_step.model=table",
    "statistics.num_examples=0",
    "mesh.data=1",
    "mesh.fsdp=1",
)


def loaded(name, *overrides):
    return configs.load(f"configs/{name}.py", overrides)


# Generated data


@pytest.mark.parametrize(
    ("overrides", "shape", "classes"),
    [
        ("data.name=digits", (8, 8, 1), 10),
        ("data.name=fashion_mnist", (28, 28, 1), 10),
        ("data.name=images data.size=16", (16, 16, 3), 10),
        ("data.name=tfds data.path=a/imagenet_resized/64x64", (64, 64, 3), 1000),
        ("data.name=tfds data.path=a/mnist", (28, 28, 1), 10),
        ("data.name=tfds data.path=cifar100", (32, 32, 3), 100),
        ("data.name=tfds data.path=celeb_a data.attributes=Male,Young", (32, 32, 3), 4),
        ("data.name=npz", (32, 32, 3), 10),
    ],
)
def test_generated_data_have_the_shape_and_the_classes_that_the_config_tells(
    overrides, shape, classes
):
    config = loaded("default", "fake_data=True", *overrides.split())
    values = {f"data.{name}": value for name, value in config.data.items()}
    assert (fake.shape(values), fake.num_classes(values)) == (shape, classes)
    if classes == 1000:
        return  # takes a second
    dataset = build.dataset(config)
    assert (dataset.shape, dataset.num_classes) == (shape, classes)
    for split in (dataset.train, dataset.validation, dataset.test):
        assert np.bincount(split.stratum, minlength=classes).min() >= 2
    assert isinstance(dataset.train.x, FileImages) == (config.data.name in ("tfds", "images"))


def test_what_is_cut_stands_in_the_config_and_fields_of_the_command_line_stay():
    config = loaded("digits", "fake_data=True", "denoiser.num_steps.middle=77")
    steps = config.denoiser.num_steps
    assert (steps.under, steps.middle, config.guidance.one_step.num_steps) == (6, 77, 6)
    assert (config.data.num_train, config.evaluation.num_samples) == (40, 20)
    assert config.denoiser.width == loaded("digits").denoiser.width
    assert len(config.evaluation.interval_weights) == 1
    assert configs.diff(configs.from_dict(configs.to_dict(config)), config) == []


@pytest.mark.parametrize("name", ["digits", "mixture_reward", "fashion_mnist", "celeba64"])
def test_every_config_can_be_cut(name):
    config = loaded(name, "fake_data=True")
    values = dict(configs._flatten(config))
    assert fake.cut(values).items() <= values.items()


# The configs


@pytest.mark.parametrize(("name", "low", "high"), [("imagenet64", 250e6, 270e6)])
def test_the_network_has_the_size_of_the_papers(name, low, high):
    """Counted without an allocation."""
    network = build.network_denoiser(loaded(name, *WEIGHTS), 1000)
    like = jax.eval_shape(lambda: network.init(jax.random.key(0), (64, 64, 3)))
    assert low < sum(leaf.size for leaf in jax.tree.leaves(like)) < high


@pytest.mark.parametrize("name", ["imagenet64", "celeba64"])
def test_settings_are_the_papers_where_it_states_them(name):
    config = loaded(name, *WEIGHTS)
    one_step = config.guidance.one_step
    assert (one_step.beta, one_step.lam, one_step.num_particles) == (1.75, 1.0, 4)
    assert (one_step.batch_size, one_step.num_steps, one_step.delta) == (256, 100_000, 0.1)
    assert (one_step.churn, config.sampling.churn, config.sampling.num_steps) == (1.0, 0.0, 100)
    assert (config.evaluation.num_samples, config.evaluation.num_test_samples) == (2048, 50_000)


# Inception


@pytest.mark.parametrize(
    ("overrides", "field", "expected"),
    [
        (WEIGHTS[1:], "evaluation.inception_path", "python -m experiments.convert_inception"),
        (WEIGHTS[:1], "evaluation.inception_sha256", "as its conversion prints it, got ''"),
        (("evaluation.inception_sha256=abc",), "evaluation.inception_sha256", "64 hexadecimal"),
        (("evaluation.num_test_samples=3",), "evaluation.num_test_samples", "0, or an integer"),
        (("evaluation.primary=class_frechet_distance",), "evaluation.primary", "inception"),
        (("reward.name=classifier",), "evaluation.features", "expected classifier"),
        (("data.name=digits", "data.path="), "data.attributes", "expected none for data digits"),
        (("data.attributes=a,a",), "data.attributes", "at most 8 different names"),
    ],
)
def test_settings_that_do_not_go_together_are_named(overrides, field, expected):
    with pytest.raises(configs.ConfigError) as caught:
        loaded("celeba64", *overrides)
    assert any(e.startswith(f"{field}: ") and expected in e for e in caught.value.errors)


def test_a_file_of_weights_that_is_missing_or_another_is_named(tmp_path):
    with pytest.raises(pipeline.MisfitError, match=r"inception_path: .*convert_inception.*No such"):
        pipeline.run(loaded("celeba64", "mesh.fsdp=1", *WEIGHTS), str(tmp_path / "run"), [])
    assert not (tmp_path / "run").exists()
    other = tmp_path / "inception.safetensors"
    other.write_bytes(b"other weights")
    config = loaded("celeba64", f"evaluation.inception_path={other}", WEIGHTS[1])
    (error,) = judges.check(config)
    assert error.startswith("evaluation.inception_sha256: expected that of ")


def stub(config, selects=False):
    """Features: eight pixels; logits: three others."""

    def features(x):
        return jnp.asarray(x).reshape(len(x), -1)[:, :8]

    network = FeatureNetwork(features, {"network": "stub"})
    return judges.Judge(network, lambda x: (features(x), 3.0 * x.reshape(len(x), -1)[:, 8:11]))


def test_rows_are_measured_and_selected_by_inception(tmp_path, monkeypatch):
    monkeypatch.setattr(judges, "load", stub)
    overrides = ("evaluation.features=inception", "evaluation.primary=frechet_distance")
    config = loaded("smoke", "fake_data=True", "data.num_test=60", *overrides)
    assert denoiser.classifiers(config) == []
    dataset, workdir = build.dataset(config), Workdir(tmp_path / "run", config)
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(10, 4, *dataset.shape)).astype(np.float32))
    flat = np.asarray(x).reshape(40, -1)

    found = measure.make(config, workdir, dataset)(x)
    real = dataset.test.x.reshape(60, -1)[:, :8]
    metrics = found["metrics"]
    assert set(metrics) == MEASURED
    expected = frechet_distance(moments(flat[:, :8]), moments(real))
    assert metrics["frechet_distance"] == pytest.approx(expected, rel=1e-5)
    assert metrics["kid"] == pytest.approx(kid(flat[:, :8], real), rel=1e-5)
    p = np.asarray(jax.nn.softmax(3.0 * flat[:, 8:11]))
    divergences = (p * np.log(p / p.mean(axis=0, keepdims=True))).sum(axis=1)
    assert metrics["inception_score"] == pytest.approx(np.exp(divergences.mean()), rel=1e-4)
    assert set(found["resampled"]) == {"energy_distance"}
    assert (workdir.path / "reference" / "inception-test.safetensors").exists()

    scores = measure.validation_distance(config, workdir, dataset)[0](x)
    assert scores.shape == (11,)
    real = dataset.validation.x.reshape(len(dataset.validation.x), -1)[:, :8]
    expected = frechet_distance(moments(flat[:, :8]), moments(real))
    assert scores[0] == pytest.approx(expected, rel=1e-5)


def test_a_run_without_files_goes_through_its_stages(tmp_path, capsys, monkeypatch):
    """But for statistics and the report, which take long; Inception-v3 is a stub."""
    monkeypatch.setattr(judges, "load", stub)
    config, workdir = loaded("imagenet64", "fake_data=True", *TINY), tmp_path / "run"
    pipeline.run(config, str(workdir), ["denoiser", "guidance", "evaluate"])
    results = json.loads((workdir / "results.json").read_text())
    assert results["config"]["fake_data"] is True
    assert {row["num_samples"] for row in results["rows"]} == {20}
    rows = {row["method"]: row["metrics"] for row in results["rows"]}
    assert set(rows["learned:self_consistency"]) == MEASURED
    assert {each["real_error"] for each in results["comparisons"] if each["metric"] == "kid"} == {
        None
    }
    names = ("denoiser", "guidance/self_consistency", "evaluate")
    rates = [json.loads(line) for line in (workdir / "throughput.jsonl").read_text().splitlines()]
    assert tuple(rate["stage"] for rate in rates) == names
    assert all(rate["per_second"] > 0.0 for rate in rates)
    assert "throughput: denoiser: " in capsys.readouterr().out


@pytest.mark.hour
@pytest.mark.filterwarnings("ignore:covariance of 32 features from 2")
def test_a_run_of_1000_classes_goes_through_its_stages(tmp_path):
    """Trajectories of 10 classes a step, schedules for each class, and the report of all."""
    config = loaded(
        "default",
        "fake_data=True",
        *("data.name=tfds", "data.path=generated/imagenet_resized/8x8"),
        "guidance.methods=('trajectory',)",
        *("guidance.trajectory.num_particles=4", "guidance.trajectory.num_targets=6"),
        *("denoiser.width=16", "denoiser.depth=1", "evaluation.sample_batch=4000"),
    )
    workdir = tmp_path / "run"
    pipeline.run(config, str(workdir), ["denoiser", "guidance", "evaluate", "report"])
    results = json.loads((workdir / "results.json").read_text())
    rows = {row["method"]: row for row in results["rows"]}
    assert len(rows["limited_interval_per_class"]["params"]["w"]) == 1000
    assert rows["learned:trajectory"]["num_samples"] == 2000
    values = np.asarray(lgd.load(workdir / "guidance" / "trajectory.safetensors").params["values"])
    assert values.size == 4 * 1000
    assert len(np.unique(values.round(6))) > 20  # of 60 classes that some step took
    report = (workdir / "report" / "report.md").read_text()
    assert len(report) < 20_000
    assert (workdir / "report" / "omega.png").stat().st_size > 10_000
