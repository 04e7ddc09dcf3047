"""The settings of learning guidance that are compared, and the values of each."""

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from experiments import build
from experiments import config as configs
from experiments.methods import FEATURES

_WIDTHS = {"mlp": 128, "conv": 16, "lenet": 16}  # hidden units; channels of the first convolution


class Variant(NamedTuple):
    """One value of a setting: how it is called, the method, and the fields that differ."""

    label: str
    method: str
    fields: Mapping[str, Any]


def values_of(method: str, field: str, values: Sequence[Any]) -> Callable[[ConfigDict], list]:
    """A setting that is one field of the config; the run's own value is always among them.

    method: "trajectory" stands for the run's own, see `_unrolled`.
    """

    def variants(config: ConfigDict) -> list[Variant]:
        own = functools.reduce(getattr, field.split("."), config)
        name = _unrolled(config) if method == "trajectory" else method
        return [Variant(f"{v:g}", name, {field: v}) for v in sorted({own, *values})]

    return variants


def _unrolled(config: ConfigDict) -> str:
    """The method whose settings are those of the trajectory objective."""
    return FEATURES if FEATURES in config.guidance.methods else "trajectory"


def _conditions_per_step(config: ConfigDict) -> list[Variant]:
    """A group of each condition a step; one alone leaves no pairs for the term that pools them."""
    name, own = "guidance.trajectory.conditions_per_step", config.guidance.trajectory
    alone = {"guidance.trajectory.marginal_weight": 0.0, "guidance.one_step.batch_size": 1}
    return [
        Variant(
            "1, none pooled" if count == 1 else f"{count}",
            _unrolled(config),
            {name: count, **(alone if count == 1 else {})},
        )
        for count in sorted({1, 2, 5, own.conditions_per_step})
    ]


def _initial_omegas(config: ConfigDict) -> list[Variant]:
    method = _unrolled(config)
    best = Variant("best hand-made", method, {"guidance.start": "best"})
    constants = [
        Variant(f"constant {w:g}", method, {"guidance.start": "init", "guidance.omega.init": w})
        for w in (0.01, 1.0)
    ]
    return [best, *constants]


def _models(config: ConfigDict) -> list[Variant]:
    """Networks and tables, each with a learning rate that suits it."""
    rates = {"network": 3e-3, "table": 0.1}
    return [
        Variant(
            f"{method}, {model}",
            method,
            {f"guidance.{group}.model": model, f"guidance.{group}.learning_rate": rate},
        )
        for method, group in (("self_consistency", "one_step"), (_unrolled(config), "trajectory"))
        for model, rate in rates.items()
    ]


def _spaces(config: ConfigDict) -> list[Variant]:
    if build.has_known_law(config):
        return []
    return [
        Variant("pixels", "trajectory", {}),
        Variant("features", FEATURES, {}),
    ]


def _feature_networks(config: ConfigDict) -> list[Variant]:
    """Their number, and every architecture but that of the network that measures."""
    own = config.features
    if FEATURES not in config.guidance.methods:
        return []
    counts = sorted({1, 2, own.num_networks})
    others = [name for name in build.CLASSIFIERS if name != config.classifier.network]
    kinds = [(own.network, count) for count in counts]
    kinds += [(name, own.num_networks) for name in others if name != own.network]
    return [
        Variant(
            f"{count} {name}",
            FEATURES,
            {
                "features.network": name,
                "features.num_networks": count,
                "features.width": own.width if name == own.network else _WIDTHS[name],
            },
        )
        for name, count in kinds
    ]


_one_step = functools.partial(values_of, "self_consistency")
_trajectory = functools.partial(values_of, "trajectory")
SETTINGS: dict[str, Callable[[ConfigDict], list[Variant]]] = {
    "beta": _one_step("guidance.one_step.beta", (0.5, 1.0, 1.5, 1.75, 2.0)),
    "lambda": _one_step("guidance.one_step.lam", (0.0, 0.25, 0.5, 0.75, 1.0)),
    "m": _one_step("guidance.one_step.num_particles", (2, 4, 8, 16)),
    "delta": _one_step("guidance.one_step.delta", (0.01, 0.1, 0.2, 0.3)),
    "churn": _one_step("guidance.one_step.churn", (0.0, 0.5, 1.0)),
    "unrolled-steps": _trajectory("sampling.num_steps", (5, 10, 16)),
    "particles": _trajectory("guidance.trajectory.num_particles", (5, 10, 20)),
    "marginal-weight": _trajectory("guidance.trajectory.marginal_weight", (0.0, 0.5, 1.0)),
    "conditions-per-step": _conditions_per_step,
    "trajectory-start": _trajectory("guidance.trajectory.start_time", (0.4, 0.8)),
    "initial-omega": _initial_omegas,
    "space": _spaces,
    "feature-network": _feature_networks,
    "model": _models,
}


def config_of(config: ConfigDict, variant: Variant) -> ConfigDict:
    """A run's config with one method alone, and the fields of the variant."""
    return replaced(config, {"guidance.methods": [variant.method], **variant.fields})


def replaced(config: ConfigDict, fields: Mapping[str, Any]) -> ConfigDict:
    """A config with other values of fields named by their paths."""
    values = configs.to_dict(config)
    for field, value in fields.items():
        *groups, leaf = field.split(".")
        functools.reduce(dict.__getitem__, groups, values)[leaf] = value
    return configs.from_dict(values)


def variants_of(config: ConfigDict, names: Sequence[str]) -> dict[str, list[Variant]]:
    """Every value of the settings named. Raises ConfigError for a run that these do not fit."""
    if config.reward.name != "none":
        raise configs.ConfigError(
            [
                f"reward.name: expected none, which settings are compared without, "
                f"got {config.reward.name!r}"
            ]
        )
    variants = {name: SETTINGS[name](config) for name in names}
    for variant in itertools.chain(*variants.values()):
        config_of(config, variant)
    return variants
