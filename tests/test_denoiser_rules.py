"""Configs of denoisers: what fits is built and runs on data of its size, the rest is refused."""

import itertools

import jax
import jax.numpy as jnp
import pytest

from configs import default
from experiments import build
from experiments import config as configs

DEFAULT = default.__file__
UNET, DIT = "denoiser.network=unet", "denoiser.network=dit"
FASHION = "data.name=fashion_mnist data.path=a.npz"
IMAGES = "data.name=images data.path=folder"

MISTAKES = [
    (f"{UNET} data.name=mixture", "network", "mlp for data mixture", "'unet'"),
    (f"{DIT} data.name=mixture", "network", "mlp for data mixture", "'dit'"),
    ("denoiser.dtype=bfloat16", "dtype", "float32 for network mlp", "'bfloat16'"),
    ("denoiser.remat=blocks", "remat", "none for network mlp", "'blocks'"),
    (f"{DIT} denoiser.width=30 denoiser.heads=3", "width", "a multiple of 4", "30"),
    (f"{DIT} denoiser.heads=3", "heads", "a divisor of denoiser.width = 256", "3"),
    (f"{DIT} denoiser.dit.patch_size=3", "dit.patch_size", "a divisor of 8", "3"),
    (f"{DIT} {FASHION} denoiser.dit.patch_size=8", "dit.patch_size", "a divisor of 28", "8"),
    (
        f"{UNET} denoiser.unet.multipliers=1,1,1,1,1",
        "unet.multipliers",
        "8, the side of data digits, can be halved",
        "(1, 1, 1, 1, 1)",
    ),
    (f"{UNET} denoiser.unet.attention=4,16", "unet.attention", "rows of a level, [8, 4]", "[16]"),
    (f"{UNET} {FASHION}", "unet.attention", "rows of a level, [28, 14]", "[4]"),
    (f"{UNET} {IMAGES} data.size=12", "unet.attention", "[12, 6] for data images", "[4]"),
    (f"{DIT} {IMAGES} data.size=9", "dit.patch_size", "9, the side of data images", "2"),
    (f"{UNET} denoiser.heads=3", "heads", "a divisor of [64]", "3"),
    ("denoiser.unet.multipliers=", "unet.multipliers", "a tuple of integers >= 1", "('',)"),
    ("denoiser.unet.multipliers=()", "unet.multipliers", "a tuple of integers >= 1", "()"),
    ("denoiser.unet.attention=4,4", "unet.attention", "different integers >= 1", "(4, 4)"),
    ("denoiser.kind=eps", "kind", "x0, v or velocity for schedule rectified_flow", "'eps'"),
    ("denoiser.kind=score schedule=cosine", "kind", "velocity for schedule cosine", "'score'"),
    ("denoiser.times_location=1", "times_location", "0.0 for times uniform", "1.0"),
    ("denoiser.times_scale=2", "times_scale", "1.0 for times uniform", "2.0"),
    ("denoiser.flip=true data.name=mixture", "flip", "false for data mixture", "True"),
    ("denoiser.flip=1", "flip", "true or false", "'1'"),
    ("denoiser.shift=1 data.name=mixture", "shift", "0 for data mixture (more", "1"),
    ("denoiser.shift=8", "shift", "less than 8, the side of data digits", "8"),
]


@pytest.mark.parametrize(("overrides", "field", "expected", "got"), MISTAKES)
def test_mistake_is_the_one_thing_reported(overrides, field, expected, got):
    with pytest.raises(configs.ConfigError) as caught:
        configs.load(DEFAULT, overrides.split(" "))
    (error,) = caught.value.errors
    assert error.startswith(f"denoiser.{field}: expected ")
    before, after = error.split(", got ")
    assert expected in before
    assert after == got


SIDES = {"digits": (8, []), "fashion_mnist": (28, FASHION.split(" "))}
SETTINGS = {
    UNET: {
        "unet.multipliers": ["1,2,1"],
        "unet.attention": ["28,7", "2"],
        "unet.channels": ["6"],
        "heads": ["2", "4"],
    },
    DIT: {"dit.patch_size": ["2", "3", "7"], "width": ["8", "10"], "heads": ["2", "3"]},
}


@pytest.mark.parametrize("data", SIDES)
@pytest.mark.parametrize("network", SETTINGS)
def test_rules_and_networks_agree_on_what_fits(network, data):
    """Every combination is either refused with the config, or built and traced."""
    side, given = SIDES[data]
    x, c = jnp.zeros((1, side, side, 1)), jnp.zeros(1, jnp.int32)
    fits = []
    for values in itertools.product(*SETTINGS[network].values()):
        chosen = zip(SETTINGS[network], values, strict=True)
        overrides = [network, *given, *(f"denoiser.{field}={value}" for field, value in chosen)]
        try:
            config = configs.load(DEFAULT, overrides)
        except configs.ConfigError:
            config = default.get_config()
            flat = {o.split("=")[0]: configs._parse_override(o, FIELDS)[1] for o in overrides}
            config.update_from_flattened_dict(flat)
            with pytest.raises(ValueError, match=r"expected .*, got"):
                trace(config, x, c)
            fits.append(False)
        else:
            out, _ = trace(config, x, c)
            assert (out.shape, out.dtype) == (x.shape, jnp.float32)
            fits.append(True)
    assert set(fits) == {True, False}


FIELDS = configs._flatten(default.get_config())


def trace(config, x, c):
    module = build.network_denoiser(config, 10).module
    return jax.eval_shape(
        lambda key: module.init_with_output(key, x, jnp.zeros(1), c), jax.random.key(0)
    )


def test_sizes_that_only_files_tell_are_left_to_the_networks():
    overrides = [UNET, "data.name=npz", "data.path=a.npz", "denoiser.unet.attention=100"]
    assert configs.load(DEFAULT, overrides).denoiser.unet.attention == (100,)


def test_settings_reach_the_loss_and_the_network():
    overrides = [
        *(UNET, "denoiser.dtype=bfloat16", "denoiser.remat=activations", "denoiser.unet.blocks=2"),
        *("denoiser.times=logit_normal", "denoiser.times_location=.5", "denoiser.times_scale=2"),
        *("denoiser.flip=true", "denoiser.shift=1", "denoiser.label_dropout=.2"),
    ]
    config = configs.load(DEFAULT, overrides)
    loss, module = build.denoising_loss(config), build.network_denoiser(config, 10).module
    found = (loss.times, loss.times_location, loss.times_scale, loss.flip, loss.shift)
    assert found == ("logit_normal", 0.5, 2.0, True, 1)
    assert loss.label_dropout == 0.2
    assert (module.dtype, module.remat) == ("bfloat16", "activations")
    assert (module.blocks, module.heads) == (2, 4)
    assert (module.channels, module.multipliers, module.attention) == (32, (1, 2), (4,))
