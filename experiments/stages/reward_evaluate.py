"""Stage 4 of a run with a reward: tune every family for every weight, then measure on test data.

``reward`` of a row is measured with another network than the one that trained (where there is
one: ``training_reward``), so that a gain in the latter alone, reward hacking, shows.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from experiments import build, build_reward
from experiments.journal import Journal, schedule_key
from experiments.stages import denoiser as denoiser_stage
from experiments.stages import evaluate, reward_guidance, reward_reach
from experiments.stages.measure import PRIMARY, Measure, guided_weight, squared_gap
from experiments.stages.reward_select import HAND_MADE, Entry, class_rewards, select
from experiments.workdir import Workdir, exists, write_json
from lgd import rewards
from lgd.data import Dataset
from lgd.evaluation import Generator, paired_difference, summary
from lgd.machinery.progress import bar
from lgd.metrics.tilt import TiltedLaws
from lgd.types import OmegaFn, RewardFn

HELPED = 0.1  # gain of a class, in standard deviations of its true reward, that counts as help


def run(config: ConfigDict, workdir: Workdir, dataset: Dataset) -> None:
    """Write results.json."""
    if exists(workdir.path / "results.json"):
        return
    generator = evaluate.make_generator(config, workdir, dataset)
    reward = reward_guidance.load_reward(config, workdir, dataset)
    journal = Journal(workdir.path / "measured.jsonl")
    with workdir.timed("tune"):
        entries = select(config, workdir, dataset, generator, reward, journal)
    with workdir.timed("test"):
        measure = RewardMeasure(config, workdir, dataset, reward)
        final = evaluate.final_generator(config, generator)
        rows, resampled = _measure_rows(config, dataset, final, measure, entries, journal)
        true = _true_rewards(dataset, measure.reward)
        results = evaluate.provenance(config, workdir.command) | {
            "reward_metric": "reward",
            "rows": rows,
            "comparisons": _comparisons(rows, resampled),
            "true_reward": float(np.mean([each.mean() for each in true])),
            "classes": _classes(dataset, generator, reward, rows, true),
            "tilted": measure.tilted_laws(),
        }
    write_json(workdir.path / "results.json", results)


class RewardMeasure:
    """Samples (classes, n, *dims) -> all metrics, and rewards by class.

    Beside those of `Measure`: reward; images with a classifier's reward: training_reward; mixture:
    tilt, the inverse temperature of the nearest tilted law, and tilt_distance, how near.
    """

    def __init__(
        self, config: ConfigDict, workdir: Workdir, dataset: Dataset, reward: RewardFn
    ) -> None:
        self._measure = Measure(config, workdir, dataset)
        self._rewards = {"reward": class_rewards(reward)}
        self.reward = reward
        if config.reward.name == "classifier":
            classifier, params = denoiser_stage.load_classifier(config, workdir, dataset)
            self.reward = rewards.class_log_probability(
                lambda params, x: classifier.apply(params, x)[0], params
            )
            independent = class_rewards(self.reward)
            self._rewards = {"reward": independent, "training_reward": class_rewards(reward)}
        self._laws = _tilted_laws(config, reward) if build.has_known_law(config) else None

    def __call__(self, x: Float[Array, "g n *dims"]) -> dict[str, dict]:
        """``{"metrics", "resampled", "by_class"}`` of one run, the last the reward's."""
        by_class = {name: np.asarray(mean(x)) for name, mean in self._rewards.items()}
        measured = self._measure(x)
        metrics = measured["metrics"] | {name: float(r.mean()) for name, r in by_class.items()}
        if self._laws is not None:
            tilt = self._laws.nearest(self._laws.distance(x))
            metrics |= {"tilt": tilt.gamma, "tilt_distance": tilt.distance}
        return measured | {"metrics": metrics, "by_class": by_class["reward"].tolist()}

    def tilted_laws(self) -> dict | None:
        """Means over classes of what the tilted laws themselves reach; None without any."""
        if self._laws is None:
            return None
        return {
            "gamma": list(self._laws.gammas),
            "reward": np.mean(self._laws.mean_reward, axis=1).tolist(),
            PRIMARY: np.mean(self._laws.from_untilted, axis=1).tolist(),
            "effective_size": np.min(self._laws.effective_size, axis=1).tolist(),
        }


def _tilted_laws(config: ConfigDict, reward: RewardFn) -> TiltedLaws:
    exact, params = build.exact_denoiser(config)
    size = config.reward.num_true_draws
    c = jnp.repeat(jnp.arange(exact.num_classes, dtype=jnp.int32), size)
    draws = exact.draw(build.stage_key(config, "tilted laws"), params, c)
    shape = (exact.num_classes, size)
    return TiltedLaws(
        draws.reshape(*shape, -1), reward(draws, c).reshape(shape), build_reward.tilts(config)
    )


def _measure_rows(
    config: ConfigDict,
    dataset: Dataset,
    generator: Generator,
    measure: RewardMeasure,
    entries: Sequence[Entry],
    journal: Journal,
) -> tuple[list[dict], dict[str, np.ndarray]]:
    """A row for each entry; and its distance, over seeds, to resampled real examples.

    Equal schedules are measured once.
    """
    per_class = config.evaluation.num_samples // dataset.num_classes
    seeds = [evaluate.TEST_SEED + i for i in range(config.evaluation.test_seeds)]
    gap, c = squared_gap(generator, dataset.test), jnp.asarray(dataset.test.c)

    def measured(omega_fn: OmegaFn, seed: int) -> dict[str, dict]:
        return measure(generator(omega_fn, per_class, seed=seed))

    rows, resampled = [], {}
    with bar("measure on test data", len(entries) * len(seeds)) as advance:
        for entry in entries:
            omega_fn = entry.candidate.omega_fn
            name = schedule_key(omega_fn, generator.times, dataset.num_classes)
            runs = []
            for seed in seeds:
                compute = functools.partial(measured, omega_fn, seed)
                runs.append(journal(f"test {name} seed={seed}", compute))
                advance(entry.method)
            resampled[entry.method] = np.mean([run["resampled"][PRIMARY] for run in runs], axis=0)
            settings = {
                "num_samples": per_class * dataset.num_classes,
                "num_steps": config.sampling.num_steps,
                "nfe": generator.nfe_of(omega_fn, per_class),
                "omega": guided_weight(omega_fn, generator.times, c, gap),
            }
            rows.append(_row(entry, runs) | settings)
    return rows, resampled


def _row(entry: Entry, runs: Sequence[dict]) -> dict:
    candidate = entry.candidate
    return {
        "method": entry.method,
        "family": entry.family,
        "params": candidate.params,
        "metrics": _metrics([run["metrics"] for run in runs], entry.gamma),
        "reward_by_class": np.mean([run["by_class"] for run in runs], axis=0).tolist(),
        "validation": {
            PRIMARY: float(candidate.distance.mean()),
            "training_reward": float(candidate.reward.mean()),
        },
    }


def _metrics(runs: Sequence[dict[str, float]], gamma: float | None) -> dict[str, dict]:
    """Summaries over seeds; with a gamma also of ``loss``, what the row was tuned for."""
    if gamma is not None:
        runs = [run | {"loss": run[PRIMARY] - gamma * _training_reward(run)} for run in runs]
    return {name: summary([run[name] for run in runs]) for name in runs[0]}


def _training_reward(run: dict[str, float]) -> float:
    return run.get("training_reward", run["reward"])


def _comparisons(rows: Sequence[dict], resampled: dict[str, np.ndarray]) -> list[dict]:
    """The loss of every learned row against the least one of a hand-made row of its gamma.

    Paired by seed; ``real_error`` is the standard deviation of the difference over resamples of the
    real examples.
    """
    comparisons = []
    for row in (row for row in rows if row["family"].startswith("learned:")):
        same = [
            each
            for each in rows
            if each["family"] in HAND_MADE and each["params"].get("gamma") == row["params"]["gamma"]
        ]
        other = min(same, key=lambda each: each["metrics"]["loss"]["mean"])
        gap = resampled[row["method"]] - resampled[other["method"]]
        comparisons.append(
            {
                "method": row["method"],
                "against": other["method"],
                "metric": "loss",
                **paired_difference(*(r["metrics"]["loss"]["values"] for r in (row, other))),
                "real_error": float(np.std(gap, ddof=1)),
            }
        )
    return comparisons


def _true_rewards(dataset: Dataset, reward: RewardFn) -> list[np.ndarray]:
    """Rewards of the real test examples, by class."""
    labels = dataset.test.stratum
    values = np.asarray(jax.jit(reward)(jnp.asarray(dataset.test.x), jnp.asarray(labels)))
    return [values[labels == k] for k in range(dataset.num_classes)]


def _classes(
    dataset: Dataset,
    generator: Generator,
    reward: RewardFn,
    rows: Sequence[dict],
    true: Sequence[np.ndarray],
) -> list[dict]:
    """For every class, how far any row moved its reward, and what derivatives at 0 say."""
    slopes = reward_reach.slopes(generator, dataset, reward, 200, seed=evaluate.TEST_SEED - 1)
    reached = np.asarray([row["reward_by_class"] for row in rows])  # the first one is unguided
    most = reached.max(axis=0)
    return [
        {
            "class": name,
            "true": float(true[k].mean()),
            "true_std": float(true[k].std()),
            "unguided": float(reached[0, k]),
            "least": float(reached[:, k].min()),
            "most": float(most[k]),
            "most_by": rows[int(reached[:, k].argmax())]["method"],
            "helped": bool(most[k] - reached[0, k] >= HELPED * true[k].std()),
            "slope": float(slopes.trajectory[k].sum()),
            "slope_up": float(np.maximum(slopes.trajectory[k], 0.0).sum()),
            "one_step_slope": float(slopes.one_step[k].mean()),
        }
        for k, name in enumerate(dataset.class_names)
    ]
