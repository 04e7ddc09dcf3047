"""Benchmarks and what is drawn from published results."""

import json
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import config as configs
from experiments import publish
from experiments.benchmarks.checks import cost, gradient_noise
from experiments.benchmarks.device.timing import ratios
from experiments.benchmarks.gram import agreement
from experiments.publish import tables
from experiments.studies import levels, transfer
from lgd import guidance, schedules
from lgd.denoisers import from_function


def test_ratios_are_taken_round_by_round():
    calls = []

    def run(name, seconds):
        calls.append(name)
        time.sleep(seconds)

    runs = {"slow": lambda: run("slow", 0.04), "fast": lambda: run("fast", 0.02)}
    found = ratios(runs, against="fast", rounds=3)
    assert calls == ["slow", "fast"] * 4  # a call of each before, to compile
    assert 1.2 < found["slow"]["ratio"] < 3.0
    assert found["slow"]["low"] <= found["slow"]["ratio"] <= found["slow"]["high"]
    assert found["fast"]["ratio"] == 1.0


def test_memory_of_a_trajectory_gradient_grows_by_the_stored_states(quick_compilation):
    case = cost.residual_mlp(width=64, depth=1, batch=40)
    memory = [cost.working_bytes(cost.trajectory_gradient(case, k)[2]) for k in (4, 12)]
    state = case.batch * 4 * np.prod(case.shape)
    assert 0.9 < (memory[1] - memory[0]) / (8 * state) < 1.5


@pytest.mark.parametrize("name", gradient_noise.contenders())
def test_every_objective_calls_the_denoiser_as_often(name):
    """Rows of all calls, as they are traced: a scan traces its body once, for K steps."""
    rows = []

    def apply(params, x, t, c):
        rows.append(len(x))
        return x

    denoiser = from_function(apply, schedule=schedules.rectified_flow(), kind="x0", null=8)
    pairs, key = 1024, jax.random.key(0)
    objective = gradient_noise.contenders()[name](pairs)
    batch = gradient_noise.draw_batch(
        key, objective, pairs, lambda key, c: jax.random.normal(key, (len(c), 2))
    )
    jax.eval_shape(lambda: objective(key, guidance.constant(1.0), denoiser, (), batch))
    if name == "learned:trajectory":  # 3 K pairs a particle
        steps = 3 * (len(gradient_noise.TIMES) - 1)
        assert 0.8 * pairs < rows[0] / 2 * steps <= pairs
    else:
        assert sum(rows) == 2 * pairs


def test_relative_noise_of_known_gradients():
    """Independent entries of variance 4 around a mean of norm 5, in 100 dimensions: 400 / 25."""
    rng = np.random.default_rng(0)
    mean = np.zeros(100)
    mean[:2] = 3.0, 4.0
    grads = mean + 2.0 * rng.normal(size=(4000, 100))
    assert gradient_noise._relative_noise(grads) == pytest.approx(16.0, rel=0.05)


def row(method, *values):
    return {"method": method, "metrics": {"energy_distance": {"values": list(values)}}}


def test_levels_are_relative_to_unguided_by_seed():
    results = {
        "primary_metric": "energy_distance",
        "rows": [row("unguided", 1.0, 2.0), row("constant", 0.5, 1.2)],
    }
    found = levels.relative(results)
    assert found["unguided"] == (1.0, 0.0)
    np.testing.assert_allclose(found["constant"], (0.55, 0.05))


def test_transfer_measures_once_and_marks_the_best(tmp_path):
    entries = [
        {
            "method": name,
            "solver": solver,
            "num_steps": steps,
            "energy_distance": {"mean": mean, "std": 0.0, "values": [mean]},
        }
        for name, means in {"constant": (0.3, 0.1), "learned:l2": (0.2, 0.4)}.items()
        for (solver, steps), mean in zip([("ddim", 8), ("heun", 8)], means, strict=True)
    ]
    assert transfer.table(entries).splitlines() == [
        "| method | ddim 8 | heun 8 |",
        "|---|---:|---:|",
        "| constant | 0.3000 | **0.1000** |",
        "| learned:l2 | **0.2000** | 0.4000 |",
    ]

    class Generator:
        times, num_classes, solver, calls = jnp.linspace(1.0, 0.0, 4), 2, "ddim", 0

        def __call__(self, omega_fn, per_class, *, seed):
            self.calls += 1
            return jnp.full(2, float(seed))

    generator = Generator()
    score = transfer._Score(lambda x: x, transfer.Journal(tmp_path / "m.jsonl"), 5, range(3, 5))
    for _ in range(2):
        assert score(generator, guidance.constant(0.2)) == [3.0, 4.0]
    assert generator.calls == 2


def test_the_float64_reference_of_agreement_is_the_loss_of_its_particles():
    """Against the float32 path of states, and central differences of itself."""
    noises = agreement.draw(5)
    omega, step = np.full((agreement.GROUPS, 4), 0.7), 1e-6
    for churn, coupling in agreement.STEPS:
        settings = (0.3, 0.6, churn, coupling)
        loss, slope = agreement.reference(noises, omega, *settings)
        path = agreement.particle_path(churn, coupling)
        times = [jnp.full(agreement.GROUPS, value) for value in settings[:2]]
        found = path(noises, jnp.asarray(omega, jnp.float32), *times)
        np.testing.assert_allclose(found, loss, rtol=1e-5)
        moved = np.zeros_like(omega)
        moved[:, 1] = step
        ahead, behind = (
            agreement.reference(noises, omega + d, *settings)[0] for d in (moved, -moved)
        )
        np.testing.assert_allclose(slope[:, 1], (ahead - behind) / (2 * step), rtol=1e-6)


def test_rows_in_few_dimensions_have_the_products_of_those_in_many():
    rows = agreement.online_rows(agreement.draw(40))
    found = agreement.statistics_rows(rows)
    pair = [np.concatenate([np.float64(each) for each in some], axis=1) for some in (rows, found)]
    ours, theirs = (each @ each.swapaxes(1, 2) for each in pair)
    np.testing.assert_allclose(theirs, ours, atol=2e-4)
    assert found.z.shape[-1] == 20


def test_the_time_of_a_run_says_how_many_networks_were_given():
    results = {"command": "run", "device": "cpu", "commit": "0" * 40, "seconds": {"tune": 90.0}}
    start, end = "`run` on cpu: 1.5 minutes in all", "; commit 000000000000."
    for given, said in (([], ""), (["a", "b"], ", without training 2 networks of another run")):
        assert tables.provenance(results | {"given_networks": given}).strip() == start + said + end


INCEPTION = ("evaluation.inception_path=weights", f"evaluation.inception_sha256={'0' * 64}")


@pytest.mark.parametrize(
    ("name", "fields", "given"),
    [
        ("fashion_mnist", (), ["selection_classifier", "features_2", "features_3", "features_4"]),
        ("fashion_mnist", ("features.num_networks=1",), ["selection_classifier"]),
        ("mixture", ("denoiser.level=exact",), []),
        ("imagenet64", INCEPTION, []),
    ],
)
def test_networks_that_no_stage_trained_were_given(name, fields, given):
    config = configs.to_dict(configs.load(f"configs/{name}.py", fields))
    seconds = dict.fromkeys(("denoiser", "classifier", "features", "tune"), 1.0)
    assert publish._given(config, seconds) == given


def test_stages_gone_through_twice_count_twice(tmp_path):
    lines = [("denoiser", 1.5), ("tune", 2.0), ("tune", 0.25)]
    text = "".join(json.dumps({"stage": s, "seconds": n}) + "\n" for s, n in lines)
    (tmp_path / "timings.jsonl").write_text(text)
    assert publish._seconds(tmp_path) == {"denoiser": 1.5, "tune": 2.25}
