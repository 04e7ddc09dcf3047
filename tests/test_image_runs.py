"""What a run on images trains, selects by and measures."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import build, build_guidance, pipeline
from experiments import config as configs
from experiments.publish import tables
from experiments.stages import denoiser, guidance, measure, report, select
from experiments.stages.guidance import Training
from experiments.workdir import Workdir
from lgd import schedules
from lgd.denoisers import NetworkDenoiser, ResidualMLP
from lgd.evaluation import Journal
from lgd.evaluation.measures import NUM_RESAMPLES
from lgd.metrics.classifier import ConvClassifier, FeatureClassifier
from lgd.metrics.frechet import frechet_distance, moments
from lgd.metrics.kid import kid

pytestmark = pytest.mark.usefixtures("quick_compilation")

IMAGE_METRICS = {
    *("energy_distance", "frechet_distance", "class_frechet_distance", "kid", "precision"),
    *("recall", "inception_score", "accuracy"),
}


@pytest.mark.parametrize(
    ("overrides", "field", "expected"),
    [
        ("classifier.network=resnet", "classifier.network", "expected one of mlp, conv, lenet"),
        ("features.seed_offset=0", "features.seed_offset", "expected an integer >= 1"),
        ("features.network=lenet", "features.network", "expected mlp or conv for images below 16"),
        ("evaluation.primary=fid", "evaluation.primary", "expected one of energy_distance, fre"),
        (
            "guidance.methods=trajectory_features features.network=mlp",
            "features.network",
            "another one than classifier.network, got 'mlp'",
        ),
        (
            "guidance.methods=trajectory_features data.name=mixture",
            "guidance.methods",
            "no trajectory_features for data mixture",
        ),
        (
            "guidance.methods=trajectory_features reward.name=classifier",
            "guidance.methods",
            "no trajectory_features with reward.name = 'classifier'",
        ),
        (
            "evaluation.primary=frechet_distance features.network=mlp",
            "features.network",
            "another one than classifier.network, got 'mlp'",
        ),
        ("classifier.network=conv data.name=mixture", "classifier.network", "expected mlp"),
        ("classifier.network=conv reward.name=classifier", "classifier.network", "expected mlp"),
        ("evaluation.primary=frechet_distance data.name=mixture", "evaluation.primary", "energy_"),
        (
            "evaluation.primary=frechet_distance reward.name=classifier",
            "evaluation.primary",
            "expected energy_distance for data digits, reward classifier",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_named(overrides, field, expected):
    with pytest.raises(configs.ConfigError) as caught:
        configs.load("configs/default.py", overrides.split())
    assert any(e.startswith(f"{field}: ") and expected in e for e in caught.value.errors)


def test_images_too_small_for_a_network_that_selects_are_refused(dataset):
    settings = ("data.name=npz", "data.path=a.npz", "features.network=lenet")
    pipeline._check_classifiers(loaded(*settings), dataset)  # nothing selects by it
    with pytest.raises(pipeline.MisfitError, match=r"features.network: .* images \(8, 8, 1\)"):
        pipeline._check_classifiers(
            loaded(*settings, "evaluation.primary=frechet_distance"), dataset
        )


def loaded(*overrides):
    return configs.load(
        "configs/smoke.py",
        ["classifier.num_features=5", "features.num_features=5", "guidance.methods=()", *overrides],
    )


@pytest.fixture(scope="module")
def dataset():
    return build.dataset(loaded())


@pytest.fixture(scope="module")
def made(tmp_path_factory, dataset):
    """A folder with untrained classifiers of every purpose."""
    methods = "guidance.methods=trajectory,trajectory_features"
    config = loaded("evaluation.primary=frechet_distance", methods)
    workdir = Workdir(tmp_path_factory.mktemp("run"), config)
    for i, name in enumerate(denoiser.classifiers(config)):
        classifier = denoiser._make_classifier(name, config, dataset)
        workdir.save_params(name, drawn(classifier, dataset.shape, seed=i))
    return config, workdir


def drawn(classifier, shape, *, seed):
    """Parameters without compiling an initialisation."""
    rng, key = np.random.default_rng(seed), jax.random.key(0)
    like = jax.eval_shape(lambda: classifier.init(key, jnp.zeros((1, *shape))))

    def draw(leaf):
        fan_in = max(1, np.prod(leaf.shape[:-1]))
        return rng.normal(size=leaf.shape, scale=fan_in**-0.5).astype(np.float32)

    return jax.tree.map(draw, like)


def test_a_run_trains_the_classifiers_it_needs():
    assert denoiser.classifiers(loaded()) == ["classifier"]
    assert denoiser.classifiers(loaded("data.name=mixture")) == []
    assert denoiser.classifiers(loaded("evaluation.primary=class_frechet_distance")) == [
        *("classifier", "selection_classifier"),
    ]
    assert denoiser.classifiers(loaded("reward.name=classifier", "guidance.methods=l2")) == [
        *("classifier", "reward_classifier"),
    ]


def test_networks_of_objectives_and_of_measurements_differ(made, dataset):
    config, workdir = made
    names = ("classifier", "selection_classifier", "features")
    each = {name: denoiser.load_classifier(config, workdir, dataset, name)[0] for name in names}
    assert isinstance(each["features"], ConvClassifier)
    assert isinstance(each["selection_classifier"], ConvClassifier)
    assert isinstance(each["classifier"], FeatureClassifier)
    other = loaded("classifier.network=conv", "features.network=mlp")
    assert isinstance(build.classifier(other.classifier, 10), ConvClassifier)
    several = loaded("features.num_networks=3", "guidance.methods=trajectory_features")
    networks = ["features", "features_2", "features_3"]
    assert denoiser.classifiers(several) == ["classifier", *networks]
    offsets = (1, 1, 2, 3)
    assert [denoiser._ordinal(name) for name in ("selection_classifier", *networks)] == [*offsets]
    keys = {
        tuple(jax.random.key_data(build.stage_key(config, name, offset)).tolist())
        for name, offset in zip(("selection_classifier", *networks), offsets, strict=True)
    }
    assert len(keys) == 4


def test_accuracies_are_those_of_each_classifier(made, dataset):
    config, workdir = made
    found = denoiser.accuracies(config, workdir, dataset)
    assert list(found) == ["classifier", "selection_classifier", "features"]
    network, params = denoiser.load_classifier(config, workdir, dataset, "features")
    logits = jax.jit(network.apply)(params, dataset.test.x)[0]
    assert logits.shape == (497, 10)
    right = np.asarray(logits).argmax(axis=1) == dataset.test.stratum
    assert found["features"] == pytest.approx(right.mean())


@pytest.mark.slow
def test_a_trajectory_is_compared_in_features_of_the_network_trained_for_it(made, dataset):
    config, workdir = made
    names = ["features", "selection_classifier"]
    objective, both, plain = (
        guidance.objective(config, workdir, dataset, Training(method), features)
        for method, features in (
            *(("trajectory_features", names[:1]), ("trajectory_features", names)),
            ("trajectory", []),
        )
    )
    network, params = denoiser.load_classifier(config, workdir, dataset, "features")
    x = jnp.asarray(dataset.test.x[:3])
    assert plain.features is None
    assert (objective.times, objective.num_particles) == (plain.times, plain.num_particles)
    features = jax.jit(objective.features)(x)
    assert features.shape == (3, config.features.num_features)
    np.testing.assert_array_equal(features, jax.jit(network.apply)(params, x)[1])
    other, params = denoiser.load_classifier(config, workdir, dataset, "selection_classifier")
    side_by_side = np.concatenate([features, other.apply(params, x)[1]], axis=1)
    np.testing.assert_allclose(jax.jit(both.features)(x), side_by_side, rtol=1e-5, atol=1e-6)
    assert build_guidance.optimizer(config, "trajectory_features").num_steps == 10


@pytest.mark.slow
def test_images_are_measured_by_the_classifier(made, dataset):
    config, workdir = made
    measured = measure.make(config, workdir, dataset)
    x = np.random.default_rng(0).normal(size=(10, 8, *dataset.shape)).astype(np.float32)
    found = measured(jnp.asarray(x))
    assert set(found["metrics"]) == IMAGE_METRICS
    assert set(found["resampled"]) == {"energy_distance", "frechet_distance"}
    assert {len(values) for values in found["resampled"].values()} == {NUM_RESAMPLES}
    network, params = denoiser.load_classifier(config, workdir, dataset)
    phi = [
        np.asarray(network.apply(params, jnp.asarray(each))[1])
        for each in (x.reshape(-1, *dataset.shape), dataset.test.x)
    ]
    metrics = found["metrics"]
    frechet = frechet_distance(*map(moments, phi))
    assert metrics["frechet_distance"] == pytest.approx(frechet, rel=1e-4)
    assert metrics["kid"] == pytest.approx(kid(*phi), rel=1e-3)
    spread = np.std(found["resampled"]["frechet_distance"])
    assert abs(np.mean(found["resampled"]["frechet_distance"]) - frechet) < 5 * spread

    real = dataset.test
    fewest = np.bincount(real.stratum).min()
    own = np.stack([real.x[real.stratum == k][:fewest] for k in range(10)])
    near = measured(jnp.asarray(own))["metrics"]
    assert near["precision"] == 1.0
    assert near["recall"] > 0.9
    assert near["frechet_distance"] < 0.1 * frechet
    assert near["energy_distance"] < 0.01 * metrics["energy_distance"]
    assert (workdir.path / "reference" / "test.safetensors").exists()


class Perturbing:
    """A generator whose samples are validation images, the farther off the farther omega is.

    By class: from 0.5, and for class 0 from 1.
    """

    denoiser = NetworkDenoiser(ResidualMLP(10, 8, 1), schedules.rectified_flow(), 10)
    times, conditions = schedules.uniform_times(4), np.arange(10)

    def __init__(self, validation):
        labels = validation.stratum
        self._real = np.stack([validation.x[labels == k][:30] for k in range(10)])

    def share(self, num_samples):
        return num_samples // 10

    def __call__(self, omega_fn, per_class, *, seed):
        t = jnp.full(10, 0.5)
        omega = np.asarray(omega_fn(s=t, t=t, c=jnp.arange(10, dtype=jnp.int32)))
        best = np.where(np.arange(10) == 0, 1.0, 0.5)
        x = np.roll(self._real, seed, axis=1)[:, :per_class]
        shift = 4.0 * np.abs(omega - best)[:, None, None, None, None]
        return jnp.asarray(x + shift, jnp.float32)


@pytest.mark.slow
@pytest.mark.parametrize(
    "primary", ["energy_distance", "frechet_distance", "class_frechet_distance"]
)
def test_the_primary_metric_is_what_is_minimised(made, dataset, tmp_path, primary):
    workdir = made[1]
    config = loaded(
        f"evaluation.primary={primary}",
        "evaluation.num_samples=300",
        "evaluation.num_screening=290",
        "evaluation.constant_weights=0,0.5,1",
        "evaluation.interval_weights=0.25,0.5,1",
        "evaluation.interval_lower=0",
        "evaluation.interval_upper=1",
    )
    generator = Perturbing(dataset.validation)
    journal = Journal(tmp_path / "measured.jsonl")
    rows = select.select(config, workdir, dataset, generator, journal).rows
    found = {row.method: row.selected for row in rows}
    assert found["constant"].params == {"w": 0.5}
    assert found["limited_interval"].params["w"] == 0.5
    assert found["limited_interval_per_class"].params["w"] == [1.0, *[0.5] * 9]
    best = found["limited_interval_per_class"]
    assert best.score < found["limited_interval"].score == found["constant"].score
    lines = (tmp_path / "measured.jsonl").read_text().splitlines()
    values = [json.loads(line)["value"] for line in lines]
    assert {len(value) for value in values} == {10 if primary == "energy_distance" else 11}

    x = generator(best.guidance, 30, seed=0)
    if primary == "frechet_distance":
        name = "selection_classifier"
        network, params = denoiser.load_classifier(config, workdir, dataset, name)
        pair = (x.reshape(-1, *dataset.shape), dataset.validation.x)
        phi = [np.asarray(network.apply(params, jnp.asarray(each))[1]) for each in pair]
        assert best.score == pytest.approx(frechet_distance(*map(moments, phi)), rel=1e-4)


def test_tables_show_the_metrics_that_rows_have():
    def row(method, **metrics):
        values = {
            name: {"mean": value, "std": 0.0, "values": [value]} for name, value in metrics.items()
        }
        return {"method": method, "params": {}, "metrics": values}

    common = {"primary_metric": "energy_distance"}
    old = {"energy_distance": 1.0, "frechet_distance": 2.0, "accuracy": 0.5}
    lines = tables.markdown({"rows": [row("unguided", **old)], **common}).splitlines()
    assert lines[0].count("|") == 6
    new = dict.fromkeys(IMAGE_METRICS, 0.5)
    rows = [row("unguided", **new), row("constant", **new | {"recall": 0.6, "kid": 0.1})]
    head, _, unguided, constant = tables.markdown({"rows": rows, **common}).splitlines()
    assert head.count("|") == 11
    assert (unguided.count("**"), constant.count("**")) == (12, 4)


@pytest.mark.parametrize(
    ("primary", "other"),
    [
        ("energy_distance", "frechet"),
        ("frechet_distance", "energy"),
        ("class_frechet_distance", "energy"),
    ],
)
def test_a_report_draws_a_metric_that_nothing_was_selected_by(primary, other):
    """Each its own, of the values given."""
    values = {name: {"mean": i, "std": 0.0, "values": [i]} for i, name in enumerate(IMAGE_METRICS)}
    rows = [{"method": "unguided", "metrics": values}]
    results = {"rows": rows, "primary_metric": primary, "lower_is_better": True}
    figures = report.metric_figures(results)
    shown = {"methods": primary, other: f"{other}_distance"}
    assert list(figures) == list(shown)
    for name, metric in shown.items():
        (number, *_) = figures[name].axes[0].texts
        assert float(number.get_text()) == values[metric]["mean"]
