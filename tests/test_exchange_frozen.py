"""A denoiser frozen to a file is the same one, and needs no other framework."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lgd

pytest.importorskip("flatbuffers")

from lgd.exchange import frozen
from lgd.exchange.files import FileError

pytestmark = pytest.mark.slow

X = jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32)
T, C = jnp.linspace(0.1, 0.9, 5), np.array([0, 1, 2, 1, 0], np.int32)
SCHEDULE = lgd.schedules.from_alphas_cumprod(np.linspace(0.99, 0.01, 10))


def predict(params, x_t, t, c):
    return jnp.tanh(x_t @ params["w"] + params["b"][c] + t[:, None])


PARAMS = {"w": jnp.eye(3) * 0.5, "b": jnp.arange(12.0).reshape(4, 3) / 10}
OWN = lgd.denoisers.from_function(predict, schedule=SCHEDULE, kind="v", null=3)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("frozen") / "denoiser.safetensors"
    frozen.freeze(path, OWN, PARAMS, shape=(3,), c=C, batch_size=2, platforms=("cpu",))
    return path


def test_predictions_and_gradients_are_those_of_the_denoiser(file):
    denoiser, params = frozen.thaw(file)
    assert (denoiser.kind, denoiser.schedule) == ("v", SCHEDULE)
    np.testing.assert_array_equal(denoiser.null(jnp.asarray(C)), [3] * 5)
    for function in (
        lambda d, p, x: d.apply(p, x, t=T, c=C),
        lambda d, p, x: jax.grad(lambda x: jnp.sum(d.apply(p, x, t=T, c=C) ** 2))(x),
    ):
        ours = jax.jit(lambda p, x, f=function: f(denoiser, p, x))(params, X)
        np.testing.assert_allclose(ours, function(OWN, PARAMS, X), rtol=1e-5, atol=1e-6)
    assert hash(denoiser) == hash(frozen.thaw(file)[0])
    assert denoiser == frozen.thaw(file)[0]


LEARN = """
import sys, jax, numpy as np, lgd
for name in ("torch", "torchax", "diffusers"):
    sys.modules[name] = None  # cannot be imported
from lgd.exchange import frozen
denoiser, params = frozen.thaw(sys.argv[1])
x0 = np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32)
guidance = lgd.learn_guidance(
    jax.random.key(0), denoiser, params, x0, np.arange(32) % 3,
    objective=lgd.objectives.Trajectory(times=(0.9, 0.5, 0.0), num_particles=4, num_targets=4),
    trainer=lgd.training.Trainer(
        optimizer=lgd.training.Optimizer(num_steps=2), progress=False, check=False))
print(np.isfinite(guidance.table([0.9, 0.5, 0.0], np.arange(3))).all())
"""


def test_guidance_is_learned_without_any_other_framework(file):
    done = subprocess.run(
        [sys.executable, "-c", LEARN, str(file)], capture_output=True, text=True, timeout=300
    )
    assert done.stdout.split() == ["True"], done.stderr[-2000:]


def test_other_files_and_denoisers_are_refused(file, tmp_path):
    raw = bytearray(file.read_bytes())
    raw[-5] ^= 1
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(raw)
    with pytest.raises(FileError, match="damaged file: its tensors differ"):
        frozen.thaw(damaged)
    (tmp_path / "other").write_bytes(b"{}")
    with pytest.raises(FileError, match="expected a denoiser written by"):
        frozen.thaw(tmp_path / "other")
    with pytest.raises(FileNotFoundError):
        frozen.thaw(tmp_path / "none")
    paired = lgd.denoisers.from_function(
        predict, schedule=SCHEDULE, kind="v", pair=lambda p, x, t, c: (x, x)
    )
    with pytest.raises(ValueError, match="made by from_function with null="):
        frozen.freeze(tmp_path / "pair", paired, PARAMS, shape=(3,), c=C)
