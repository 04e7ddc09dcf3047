"""Objects of the library from a config."""

import dataclasses

import pytest

from configs import default
from experiments import build, build_guidance
from experiments import config as configs
from lgd import objectives
from lgd.data import tfds_records
from lgd.learn import default_objective, default_optimizer


@pytest.mark.parametrize("method", ["trajectory", "self_consistency"])
def test_api_and_launcher_have_the_same_defaults(method):
    config = default.get_config()
    objective = build_guidance.objective(config, method)
    expected = {"trajectory": default_objective(), "self_consistency": objectives.SelfConsistency()}
    assert objective == expected[method]
    dataset = build.dataset(config)
    model = build_guidance.omega_model(config, method, dataset)
    assert build_guidance.optimizer(config, method) == default_optimizer(model)
    assert model == objective.default_model(build.schedule(config), dataset.conditions)


def test_directions_learn_two_tables():
    config = default.get_config()
    model = build_guidance.omega_model(config, "directions", build.dataset(config))
    assert (model.num_directions, model.models[0]) == (2, model.models[1])


def test_trainings_after_the_first_weight_of_a_reward_are_shorter():
    config = default.get_config()
    plain = build_guidance.optimizer(config, "trajectory")
    assert build_guidance.optimizer(config, "trajectory", config.reward.weights[0]) == plain
    later = build_guidance.optimizer(config, "trajectory", config.reward.weights[1])
    assert later == dataclasses.replace(plain, num_steps=config.reward.trajectory_num_steps)


def test_a_config_names_a_data_set_of_tfds(monkeypatch):
    monkeypatch.setattr(tfds_records, "load", lambda *sizes, **settings: (sizes, settings))
    numbers = [f"data.{field}=20" for field in ("num_train", "num_validation", "num_test")]
    overrides = ["data.name=tfds", "data.path=mnist", *numbers]
    arguments, settings = build.dataset(configs.load("configs/fashion_mnist.py", overrides))
    assert arguments == ("mnist", 20, 20, 20)
    assert settings == {"size": 0, "attributes": (), "seed": 0}


def test_what_walks_takes_the_sampling_grid_and_the_fields_of_its_group():
    config = default.get_config()
    config.guidance.path.num_sweeps = 2
    settings = build_guidance.walk(config, "path").keywords["settings"]
    assert (settings.num_particles, settings.num_sweeps) == (200, 2)
    assert settings.grid == tuple(build.times(config).tolist())
    assert not settings.check
