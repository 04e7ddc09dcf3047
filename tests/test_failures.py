import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgd import guidance, learn_guidance, objectives, omega, schedules
from lgd.denoisers import from_function, probe
from lgd.evaluation import Generator
from lgd.machinery import failures, parallel
from lgd.machinery.checkpoint import CheckpointStore
from lgd.machinery.digests import of_tree
from lgd.machinery.failures import NonFiniteError
from lgd.training import Optimizer, Trainer

pytestmark = pytest.mark.usefixtures("quick_compilation")
FLOW = schedules.rectified_flow()
TIMES = (1.0, 0.75, 0.5, 0.25, 0.0)

unprobed = functools.partial(Trainer, check=False, progress=False)  # a probe warns of toys


def broken_between(low, high, *, without_condition=False):
    """A denoiser that returns NaN for low <= t <= high."""

    def predict(params, x_t, t, c):
        bad = (t >= low) & (t <= high) & ((c == 2) | (not without_condition))
        return x_t * params["w"] + 0.3 * c[:, None] + jnp.where(bad, jnp.nan, 0.0)[:, None]

    return from_function(predict, schedule=FLOW, kind="velocity", null=2)


PARAMS = {"w": np.float32(0.5)}
X0 = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
LABELS = np.arange(40, dtype=np.int32) % 2


@pytest.mark.parametrize("without_condition", [False, True])
def test_times_at_which_a_denoiser_is_not_finite(without_condition):
    broken = broken_between(0.4, 0.6, without_condition=without_condition)
    halves = ["conditional", "unconditional"][without_condition:]
    assert probe.non_finite_times(broken, PARAMS, X0, LABELS, TIMES) == {0.5: halves}
    which = " for unconditional inputs" if without_condition else ""
    report = probe.non_finite_report(broken, PARAMS, X0, LABELS, TIMES)
    assert report.endswith(f"NaN or inf{which} at t = 0.5")
    fine = broken_between(2.0, 3.0)
    assert "finite at each of 5 times" in probe.non_finite_report(fine, PARAMS, X0, LABELS, TIMES)


def test_many_such_times_are_cut_short():
    said = probe.non_finite_report(
        broken_between(0.0, 0.9), PARAMS, X0, LABELS, np.linspace(0, 1, 11).tolist()
    )
    assert said.endswith("t = 0, 0.1, 0.2, 0.3, 0.4 and 5 more up to t = 0.9")


def learn(denoiser, optimizer=None, on_log=None, **settings):
    return learn_guidance(
        jax.random.key(0),
        denoiser,
        PARAMS,
        X0,
        LABELS,
        **settings,
        trainer=unprobed(optimizer=optimizer, on_log=on_log, batch_size=8),
    )


TRAJECTORY = objectives.Trajectory(times=TIMES, num_particles=4, num_targets=4)


def test_learning_along_a_trajectory_names_the_noise_level():
    with pytest.raises(NonFiniteError, match=r"start schedules.*NaN or inf at t = 0\.5$"):
        learn(broken_between(0.499, 0.501), objective=TRAJECTORY)


@pytest.mark.slow
def test_learning_at_random_times_names_the_noise_levels_and_the_examples():
    one = {"constant(1)": guidance.constant(1.0)}
    optimizer = Optimizer(num_steps=30, max_skipped=3)
    with pytest.raises(
        NonFiniteError, match=r"NaN or inf at t = 0\.4, .* up to t = 0\.6"
    ) as caught:
        learn(
            broken_between(0.3999, 0.6001),
            objective=objectives.SelfConsistency(),
            optimizer=optimizer,
            start=one,
        )
    assert len(caught.value.steps) == len(caught.value.examples) == 3
    assert {len(batch) for batch in caught.value.examples} == {8}
    assert all(0 <= index < 40 for batch in caught.value.examples for index in batch)


def test_sampling_names_the_noise_level():
    generator = Generator(
        denoiser=broken_between(0.2, 0.3),
        params=PARAMS,
        shape=(2,),
        conditions=np.arange(2, dtype=np.int32),
        times=jnp.asarray(TIMES),
    )
    with pytest.raises(NonFiniteError, match=r"finite samples.*NaN or inf at t = 0\.25$"):
        generator(guidance.constant(0.5), 3, seed=0)


def test_other_errors_of_jax_stay_what_they_are():
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), failures.memory_advice():
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")


ENERGY = {"beta": 1.75, "lam": 1.0}
OBJECTIVES = {
    "self_consistency": objectives.SelfConsistency(),
    "l2": objectives.l2(),
    "conditional_marginal": objectives.ConditionalMarginalConsistency(group_size=4, **ENERGY),
    "marginal": objectives.MarginalConsistency(num_particles=4, **ENERGY),
    "guided_score_matching": objectives.GuidedScoreMatching(),
    "trajectory": TRAJECTORY,
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_frozen_model_is_the_same_bit_for_bit_after_every_objective(name):
    placed = parallel.place(PARAMS, parallel.replicated(parallel.make_mesh(1)))
    before = of_tree(placed)
    objective = OBJECTIVES[name]
    model = omega.StepTable(times=TIMES, rows=omega.ByLabel(2))
    learned = learn_guidance(
        jax.random.key(0),
        broken_between(2.0, 3.0),
        placed,
        X0,
        LABELS,
        objective=objective,
        model=model,
        start={"constant(1)": guidance.constant(1.0)},
        trainer=unprobed(optimizer=Optimizer(num_steps=2, learning_rate=0.1), batch_size=8),
    )
    start = model.tabulate(guidance.constant(1.0), np.arange(2))
    assert of_tree(learned.params) != of_tree(start)
    assert of_tree(placed) == before


def test_a_store_filled_with_other_data_or_settings_is_refused(tmp_path):
    fixed = {
        "objective": TRAJECTORY,
        "model": omega.StepTable(times=TIMES, rows=omega.ByLabel(2)),
        "start": {"constant(1)": guidance.constant(1.0)},
    }
    trainer = unprobed(optimizer=Optimizer(num_steps=2, learning_rate=0.1), batch_size=8)
    denoiser, key = broken_between(2.0, 3.0), jax.random.key(0)
    with CheckpointStore(tmp_path) as store:
        learned = learn_guidance(
            key,
            denoiser,
            PARAMS,
            X0,
            LABELS,
            trainer=dataclasses.replace(trainer, store=store),
            **fixed,
        )
        again = learn_guidance(
            key,
            denoiser,
            PARAMS,
            X0,
            LABELS,
            trainer=dataclasses.replace(trainer, store=store),
            **fixed,
        )
        assert of_tree(again.params) == of_tree(learned.params)
        for changed_key, x0, labels, settings in (
            (jax.random.key(1), X0, LABELS, {}),
            (key, X0[::-1], LABELS, {}),
            (key, X0, 1 - LABELS, {}),
            (key, X0, LABELS, {"batch_size": 16}),
            (key, X0, LABELS, {"optimizer": Optimizer(num_steps=3, learning_rate=0.1)}),
        ):
            with pytest.raises(ValueError, match="store: expected checkpoints of a training with"):
                learn_guidance(
                    changed_key,
                    denoiser,
                    PARAMS,
                    x0,
                    labels,
                    trainer=dataclasses.replace(trainer, store=store, **settings),
                    **fixed,
                )
        assert store.steps() == [2]
