"""PyTorch modules as denoisers: the same numbers and gradients, and errors that say what to do."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lgd

torch = pytest.importorskip("torch")
pytest.importorskip("torchax")

from lgd.exchange import torch as bridge  # noqa: E402

pytestmark = pytest.mark.slow  # runs where the extra is installed

FLOW = lgd.schedules.rectified_flow()
RNG = np.random.default_rng(0)
X, T = RNG.normal(size=(3, 4, 6)).astype(np.float32), np.float32([0.2, 0.5, 0.9])
C = np.int32([0, 3, 5])


class Attention(torch.nn.Module):
    """Attention over rows, with a vector of the label and of the time, and a buffer."""

    def __init__(self, mask=False):
        super().__init__()
        self.embed = torch.nn.Embedding(6, 6)
        self.attend = torch.nn.MultiheadAttention(6, 2, batch_first=True)
        self.norm = torch.nn.BatchNorm1d(4)
        self.register_buffer("shift", torch.full((6,), 0.5))
        self.mask = mask

    def forward(self, x, t, c):
        h = x + self.embed(c)[:, None] + t[:, None, None] * self.shift
        mask = torch.ones(4, 4).tril() == 0 if self.mask else None
        return self.norm(self.attend(h, h, h, attn_mask=mask, need_weights=False)[0])


class Labelled(torch.nn.Module):
    def forward(self, x, t, c):
        return {"sample": x * t[:, None, None]}


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    module = Attention()
    module.norm.running_mean.fill_(0.3)  # a buffer that training changed
    return module


def theirs(module, x, t, c):
    with torch.no_grad():
        return module(torch.tensor(x), torch.tensor(t), torch.tensor(c).long()).numpy()


@pytest.fixture(scope="module")
def brought(module):
    return bridge.from_module(module, schedule=FLOW, kind="x0", null=5)


def test_predictions_are_those_of_pytorch(module, brought):
    denoiser, params = brought
    ours = jax.jit(denoiser.apply)(params, X, t=T, c=C)
    np.testing.assert_allclose(ours, theirs(module, X, T, C), rtol=1e-5, atol=1e-6)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(params))
    assert any("running_mean" in name for name in params)


def test_masks_of_attention_are_kept():
    torch.manual_seed(1)
    module = Attention(mask=True)
    denoiser, params = bridge.from_module(module, schedule=FLOW, kind="x0", null=5)
    ours = jax.jit(denoiser.apply)(params, X, t=T, c=C)
    np.testing.assert_allclose(ours, theirs(module, X, T, C), rtol=1e-5, atol=1e-6)


def test_gradients_in_the_input_are_those_of_pytorch(module, brought):
    denoiser, params = brought
    weight = RNG.normal(size=X.shape).astype(np.float32)
    x = torch.tensor(X, requires_grad=True)
    total = (module(x, torch.tensor(T), torch.tensor(C).long()) * torch.tensor(weight)).sum()
    (expected,) = torch.autograd.grad(total, x)

    def loss(x):
        return jnp.sum(weight * denoiser.apply(params, x, t=jnp.asarray(T), c=C))

    np.testing.assert_allclose(jax.jit(jax.grad(loss))(X), expected, rtol=1e-4, atol=1e-5)
    remembered = jax.jit(jax.grad(jax.checkpoint(loss)))(X)
    np.testing.assert_allclose(remembered, expected, rtol=1e-4, atol=1e-5)


def test_guidance_is_learned_for_a_module(brought):
    denoiser, params = brought
    x0 = RNG.normal(size=(64, 4, 6)).astype(np.float32)
    guidance = lgd.learn_guidance(
        jax.random.key(0),
        denoiser,
        params,
        x0,
        np.arange(64) % 5,
        objective=lgd.objectives.SelfConsistency(),
        trainer=lgd.training.Trainer(
            optimizer=lgd.training.Optimizer(num_steps=3),
            batch_size=16,
            progress=False,
            check=False,  # nobody trained the module
        ),
    )
    x = lgd.sample(
        jax.random.key(1), denoiser, params, jnp.arange(3), guidance=guidance, shape=(4, 6),
        num_steps=3,
    ).x0  # fmt: skip
    assert np.isfinite(x).all()


def test_a_module_in_half_precision_predicts_in_the_dtype_of_its_input(module):
    denoiser, params = bridge.from_module(
        module, schedule=FLOW, kind="x0", null=5, dtype=jnp.bfloat16
    )
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} <= {"bfloat16", "int32"}
    ours = jax.jit(denoiser.apply)(params, X, t=T, c=C)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs(module, X, T, C), atol=0.1)


def test_the_module_stays_a_module_when_threads_trace_it_at_once(module, brought):
    denoiser, params = brought
    expected, found = theirs(module, X, T, C), []

    def trace(rows):
        found.append(jax.jit(denoiser.apply)(params, X[:rows], t=T[:rows], c=C[:rows]))

    threads = [threading.Thread(target=trace, args=(rows,)) for rows in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(len(each) for each in found) == [1, 2, 3]
    np.testing.assert_array_equal(theirs(module, X, T, C), expected)


class Branching(torch.nn.Module):
    def forward(self, x, t, c):
        return x if x.sum() > 0 else -x


class Reading(torch.nn.Module):
    def forward(self, x, t, c):
        return x * x.sum().item()


class ThroughNumpy(torch.nn.Module):
    def forward(self, x, t, c):
        return torch.tensor(x.numpy())


class Hiding(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = [torch.ones(4, 6)]

    def forward(self, x, t, c):
        return x + self.hidden[0]


class Narrow(torch.nn.Module):
    def forward(self, x, t, c):
        return x[:, :2]


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (Branching(), "branches on, or converts, the value of a tensor"),
        (Reading(), "branches on, or converts, the value of a tensor"),
        (ThroughNumpy(), "branches on, or converts, the value of a tensor"),
        (Hiding(), "register_buffer"),
        (Narrow(), r"expected a prediction of shape \(3, 4, 6\), got .*\(3, 2, 6\)"),
        (Labelled(), "call: expected one tensor of shape .* got dict"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_modules_that_cannot_be_traced_are_refused_in_words(module, words):
    denoiser, params = bridge.from_module(module, schedule=FLOW, kind="x0", null=5)
    with pytest.raises(ValueError, match=words) as refused:
        jax.jit(denoiser.apply)(params, X, t=T, c=C)
    assert len(str(refused.value)) < 500


def test_what_is_no_module_is_refused():
    with pytest.raises(TypeError, match=r"expected a torch.nn.Module, got function"):
        bridge.from_module(lambda x, t, c: x, schedule=FLOW, kind="x0", null=5)


def test_another_method_and_a_part_of_the_output_are_reached_by_call():
    denoiser, params = bridge.from_module(
        Labelled(), schedule=FLOW, kind="x0", null=5, call=lambda m, x, t, c: m(x, t, c)["sample"]
    )
    ours = jax.jit(denoiser.apply)(params, X, t=T, c=C)
    np.testing.assert_allclose(ours, X * T[:, None, None], rtol=1e-6)


def test_a_call_takes_the_numbers_of_levels_for_times():
    schedule = lgd.schedules.from_alphas_cumprod(np.linspace(0.99, 0.01, 10))

    def call(module, x, t, c):
        return module(x, lgd.schedules.timestep(t, 10), c)["sample"]

    denoiser, params = bridge.from_module(
        Labelled(), schedule=schedule, kind="x0", null=5, call=call
    )
    times = lgd.schedules.time_of(np.arange(3), 10)
    ours = jax.jit(denoiser.apply)(params, X, t=times, c=C)
    np.testing.assert_array_equal(ours, X * np.float32([0.0, 1.0, 2.0])[:, None, None])
