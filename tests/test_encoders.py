import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lgd import encoders, omega, schedules
from lgd.encoders import Encoder, Labels, Nothing, Several, Tokens, Vectors

FLOW = schedules.rectified_flow()
WIDTH = 8
RNG = np.random.default_rng(0)


def f32(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def tokens(b, n=4, e=3, marked=2):
    return {"tokens": f32(b, n, e), "mask": jnp.arange(n)[None] < jnp.full((b, 1), marked)}


EXAMPLES = {  # an encoder, and six conditions of its kind
    "labels": (Labels(3), jnp.array([0, 1, 2, 0, 1, 2])),
    "vectors": (Vectors(4), f32(6, 4)),
    "tokens": (Tokens(3), tokens(6)),
    "several": (
        Several({"text": Tokens(3), "label": Labels(3)}),
        {"label": jnp.array([2, 1, 0, 2, 1, 0]), "text": tokens(6)},
    ),
    "nothing": (Nothing(), f32(6, 5)),
}


class Module(nn.Module):
    encoder: Encoder

    @nn.compact
    def __call__(self, c):
        return self.encoder.embed(c, WIDTH)


class PlainNetwork(nn.Module):
    """The network of omega in plain Flax, with the layer of its condition given."""

    embed: str
    depth: int

    @nn.compact
    def __call__(self, logsnrs, c):
        h = nn.Dense(WIDTH)(nn.silu(nn.Dense(WIDTH)(logsnrs / 5.0)))
        if self.embed == "labels":
            h = h + nn.Embed(3, WIDTH)(c)
        if self.embed == "vectors":
            h = h + nn.Dense(WIDTH)(c)
        for _ in range(self.depth):
            h = nn.silu(nn.Dense(WIDTH)(h))
        start = nn.initializers.constant(1.0)
        return nn.Dense(1, kernel_init=nn.initializers.zeros, bias_init=start)(h)[:, 0]


def moved(params):
    leaves, structure = jax.tree.flatten(params)
    rng = np.random.default_rng(1)
    noise = [jnp.asarray(0.3 * rng.normal(size=x.shape), jnp.float32) for x in leaves]
    return jax.tree.unflatten(structure, [a + b for a, b in zip(leaves, noise, strict=True)])


@pytest.mark.sampled(2)
@pytest.mark.parametrize("kind", ["labels", "vectors", "nothing"])
def test_a_network_has_the_parameters_and_values_of_plain_flax_code_bit_for_bit(kind):
    encoder, c = EXAMPLES[kind]
    model = omega.Network(schedule=FLOW, encoder=encoder, width=WIDTH, depth=2, output="relu")
    plain, key = PlainNetwork(kind, 2), jax.random.key(3)
    params, expected = model.init(key, c), plain.init(key, jnp.zeros((1, 2)), c[:1])
    assert jax.tree.structure(params) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    params = moved(params)
    s, t = jnp.linspace(0.1, 0.4, 6), jnp.linspace(0.5, 0.9, 6)
    logsnrs = jnp.stack([FLOW.logsnr(s), FLOW.logsnr(t)], axis=-1)
    expected = jnp.clip(plain.apply(params, logsnrs, c), 0.0, 10.0)
    np.testing.assert_array_equal(model.apply(params, s=s, t=t, c=c), expected)


@pytest.mark.parametrize("kind", EXAMPLES)
def test_every_condition_has_a_vector_of_its_own(kind):
    """Conditions are embedded one by one: the same in any batch, and only equal ones equally."""
    encoder, c = EXAMPLES[kind]
    encoder.check(c)
    module = Module(encoder)
    vectors = module.apply(module.init(jax.random.key(0), c), c)
    if kind == "nothing":
        assert vectors == 0.0
        return
    assert vectors.shape == (6, WIDTH)
    last = module.apply(module.init(jax.random.key(0), c), jax.tree.map(lambda x: x[-1:], c))
    np.testing.assert_allclose(last[0], vectors[-1], rtol=1e-5, atol=1e-6)
    assert np.linalg.matrix_rank(np.asarray(vectors)) >= 3


def test_the_encoder_of_an_example_is_the_one_that_takes_it():
    for kind, (encoder, c) in EXAMPLES.items():
        if kind != "nothing":
            assert encoders.for_condition(c) == encoder
            assert encoders.for_condition(jax.tree.map(np.asarray, c)) == encoder
    assert encoders.for_condition(None) == encoders.for_condition({}) == Nothing()
    assert encoders.for_condition({"a": {"b": jnp.arange(3)}}) == Several(
        {"a": Several({"b": Labels(3)})}
    )


def test_masked_tokens_do_not_matter_whatever_they_are():
    c = tokens(2, marked=2)
    module = Module(Tokens(3))
    params = module.init(jax.random.key(0), c)
    same = {"tokens": c["tokens"].at[:, 2:].set(jnp.nan), "mask": c["mask"]}
    np.testing.assert_array_equal(module.apply(params, c), module.apply(params, same))
    kernel, bias = params["params"]["Dense_0"]["kernel"], params["params"]["Dense_0"]["bias"]
    mean = c["tokens"][:, :2].mean(axis=1)
    np.testing.assert_allclose(module.apply(params, c), mean @ kernel + bias[None], atol=1e-6)
    empty = c | {"mask": jnp.zeros_like(c["mask"])}
    np.testing.assert_array_equal(module.apply(params, empty), jnp.stack([bias, bias]))
    slopes = jax.grad(lambda c: module.apply(params, c).sum(), allow_int=True)(same)
    assert np.isfinite(slopes["tokens"]).all()


def test_names_and_not_their_order_make_several_encoders_equal():
    one, two = Labels(2), Vectors(3)
    assert Several({"b": one, "a": two}) == Several({"a": two, "b": one})
    assert hash(Several({"b": one, "a": two})) == hash(Several((("a", two), ("b", one))))
    assert Several({"b": one, "a": two}) != Several({"a": one, "b": two})


@pytest.mark.parametrize("num_classes", [1, 3])
@pytest.mark.parametrize("label", [-1, -3, 3, 7])
def test_a_label_outside_is_nan_where_it_is_traced_and_an_error_elsewhere(num_classes, label):
    encoder = Labels(num_classes)
    module, c = Module(encoder), jnp.array([0, label])
    params = module.init(jax.random.key(0), c[:1])

    @jax.jit
    def embed(c):
        encoder.check(c)
        return module.apply(params, c)

    inside, outside = embed(c)
    assert np.isfinite(inside).all()
    assert np.isnan(outside).all()
    with pytest.raises(ValueError, match=rf"expected labels in \[0, {num_classes}\), got {label}"):
        encoder.check(c)
    assert np.isfinite(embed(c.astype(jnp.int8).at[1].set(0))).all()


WRONG = {
    "labels": [f32(6), f32(6, 4), jnp.zeros((6, 1), jnp.int32), {"a": jnp.arange(6)}, None, [0, 1]],
    "vectors": [jnp.arange(6), f32(6), f32(6, 5), f32(6, 3, 4), jnp.zeros((6, 4), int), tokens(6)],
    "tokens": [
        f32(6, 4, 3),
        tokens(6, e=2),
        {"tokens": f32(6, 4, 3)},
        tokens(6) | {"mask": jnp.ones((6, 4), jnp.int32)},
        tokens(6) | {"mask": jnp.ones((6, 5), bool)},
        tokens(6) | {"more": f32(6)},
        (f32(6, 4, 3), jnp.ones((6, 4), bool)),
    ],
    "several": [
        jnp.arange(6),
        {"label": jnp.arange(3)},
        {"label": f32(6), "text": tokens(6)},
        {"label": jnp.arange(3), "text": tokens(6), "more": f32(6)},
    ],
}


@pytest.mark.parametrize("kind", WRONG)
def test_conditions_of_another_kind_are_refused(kind):
    encoder, right = EXAMPLES[kind]
    model = omega.Network(schedule=FLOW, encoder=encoder, width=WIDTH, depth=1)
    params = model.init(jax.random.key(0), right)
    query = {"s": jnp.full(6, 0.2), "t": jnp.full(6, 0.5)}
    for c in WRONG[kind]:
        with pytest.raises(ValueError, match=r"expected .*, got"):
            encoder.check(c)
        with pytest.raises(ValueError, match=r"expected .*, got"):
            model.init(jax.random.key(0), c)
        with pytest.raises(ValueError, match=r"expected .*, got"):
            jax.jit(lambda c: model.apply(params, **query, c=c))(c)


def test_messages_name_the_kind_and_the_place():
    with pytest.raises(ValueError, match=r"expected vectors \(b, 4\) of floats, got \{mask: bool"):
        Vectors(4).check(tokens(2))
    with pytest.raises(ValueError, match=r"label: expected integer labels \(b,\), got float32"):
        Several({"label": Labels(2)}).check({"label": f32(3)})
    for c in (f32(3), f32(3, 4, 5), (jnp.arange(3), f32(3, 2)), jnp.zeros(3, bool), [0, 1]):
        with pytest.raises(ValueError, match="expected conditions that are"):
            encoders.for_condition(c)
    with pytest.raises(ValueError, match="expected labels >= 0, got -1"):
        encoders.for_condition(jnp.array([0, -1]))


@pytest.mark.parametrize(
    "make",
    [lambda: Labels(0), lambda: Vectors(0), lambda: Tokens(-1), lambda: Several({}),
     lambda: Several((("a", Labels(1)), ("a", Labels(2))))],
)  # fmt: skip
def test_bad_settings_raise(make):
    with pytest.raises(ValueError, match=r"expected .*, got"):
        make()


@pytest.mark.sampled(3)
@pytest.mark.parametrize("kind", EXAMPLES)
def test_half_precision_meets_the_parameters_under_strict_promotion(kind):
    encoder, c = EXAMPLES[kind]
    half = jax.tree.map(
        lambda x: x.astype(jnp.bfloat16) if jnp.issubdtype(x.dtype, jnp.floating) else x, c
    )
    model = omega.Network(schedule=FLOW, encoder=encoder, width=WIDTH, depth=1)
    query = {"s": jnp.full(6, 0.25, jnp.bfloat16), "t": jnp.full(6, 0.5, jnp.bfloat16)}
    with jax.numpy_dtype_promotion("strict"):
        params = moved(model.init(jax.random.key(0), half))
        found = jax.jit(model.apply)(params, **query, c=half)
    as_float = jax.tree.map(lambda x: x.astype(jnp.float32), query)
    c = jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x, half)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, model.apply(params, **as_float, c=c), rtol=1e-5)
