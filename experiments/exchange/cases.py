"""Networks of diffusers and transformers with random weights, and what they are called with."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from lgd.exchange.diffusers import tiny
from lgd.exchange.extras import required

RNG = np.random.default_rng(0)


@dataclasses.dataclass(frozen=True)
class Case:
    """A module, its call, and inputs of which the first is differentiated.

    Where the first input is of integers, the weight of the name ``weight`` is differentiated.
    denoises: its output has the shape of the first input, so that it can be iterated.
    """

    name: str
    module: Any
    call: Callable[..., Any]
    inputs: tuple[Any, ...]
    weight: str = ""
    denoises: bool = False


def floats(*shape: int) -> np.ndarray:
    """Standard normal numbers."""
    return RNG.standard_normal(shape).astype(np.float32)


TIME = np.array([700.0, 20.0], np.float32)
LATENTS = (2, 4, 8, 8)
TOKENS, POOLED = floats(2, 7, tiny.TOKEN), floats(2, tiny.TOKEN)
LABELS = np.array([3, 7], np.int32)
IDS = RNG.integers(3, 90, size=(2, 9)).astype(np.int32)
MASK = np.array([[1] * 9, [1] * 5 + [0] * 4], np.int32)
WIDTHS = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
PATCHES = {"image_size": 16, "patch_size": 4}


def cases() -> Iterator[Case]:
    """One case at a time, so that one network is in memory."""
    yield from _unets()
    yield from _transformers()
    yield _flux()
    yield from _autoencoders()
    yield from _clip()
    yield from _encoders()


def _case(name: str, module: Any, call: Callable[..., Any], *more: Any) -> Case:
    """A denoiser of latents at two timesteps."""
    return Case(name, module, call, (floats(*LATENTS), TIME, *more), denoises=True)


def _unets() -> Iterator[Case]:
    unet = required("diffusers", "diffusers").UNet2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(16, 16),
        norm_num_groups=8,
        num_class_embeds=11,
    )
    yield _case(
        "UNet2DModel, labels",
        tiny.randomised(unet),
        lambda m, x, t, c: m(x, t, class_labels=c, return_dict=False)[0],
        LABELS,
    )
    yield _case(
        "UNet2DConditionModel",
        tiny.unet(),
        lambda m, x, t, c: m(x, t, encoder_hidden_states=c, return_dict=False)[0],
        TOKENS,
    )

    def xl(m: Any, x: Any, t: Any, c: Any, pooled: Any, ids: Any) -> Any:
        added = {"text_embeds": pooled, "time_ids": ids}
        options = {"added_cond_kwargs": added, "return_dict": False}
        return m(x, t, encoder_hidden_states=c, **options)[0]

    ids = np.tile(np.array([16, 16, 0, 0, 16, 16], np.float32), (2, 1))
    yield _case("UNet2DConditionModel of SDXL", tiny.unet_xl(), xl, TOKENS, POOLED, ids)


def _transformers() -> Iterator[Case]:
    def sd3(m: Any, x: Any, t: Any, c: Any, pooled: Any) -> Any:
        given = {"hidden_states": x, "timestep": t, "encoder_hidden_states": c}
        return m(**given, pooled_projections=pooled, return_dict=False)[0]

    yield _case("SD3Transformer2DModel", tiny.sd3(), sd3, TOKENS, POOLED)
    yield _case(
        "DiTTransformer2DModel",
        tiny.dit(),
        lambda m, x, t, c: m(x, timestep=t, class_labels=c, return_dict=False)[0],
        LABELS,
    )

    def pixart(m: Any, x: Any, t: Any, c: Any, mask: Any) -> Any:
        given = {"encoder_hidden_states": c, "encoder_attention_mask": mask, "timestep": t}
        sizes = {"resolution": None, "aspect_ratio": None}
        return m(x, **given, added_cond_kwargs=sizes, return_dict=False)[0][:, :4]

    mask = np.array([[1] * 7, [1] * 4 + [0] * 3], np.float32)
    network = tiny.pixart_transformer()
    yield _case("PixArtTransformer2DModel, mask", network, pixart, TOKENS, mask)


def _flux() -> Case:
    def call(m: Any, x: Any, t: Any, c: Any, pooled: Any, of_text: Any, of_image: Any) -> Any:
        return m(
            hidden_states=x,
            timestep=t / 1000.0,
            encoder_hidden_states=c,
            pooled_projections=pooled,
            txt_ids=of_text,
            img_ids=of_image,
            return_dict=False,
        )[0]

    rows = np.arange(16)
    places = np.stack([np.zeros(16), rows // 4, rows % 4], axis=1).astype(np.float32)
    inputs = (floats(2, 16, 16), TIME, TOKENS, POOLED, np.zeros((7, 3), np.float32), places)
    name = "FluxTransformer2DModel"
    return Case(name, tiny.flux_transformer(), call, inputs, denoises=True)


def _autoencoders() -> Iterator[Case]:
    vae = tiny.vae()
    yield Case(
        "AutoencoderKL.encode",
        vae,
        lambda m, x: m.encode(x).latent_dist.mean,
        (floats(2, 3, 8, 8),),
    )
    yield Case(
        "AutoencoderKL.decode",
        vae,
        lambda m, z: m.decode(z, return_dict=False)[0],
        (floats(*LATENTS),),
    )
    small = required("diffusers", "diffusers").AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )
    yield Case(
        "AutoencoderTiny.decode",
        tiny.randomised(small),
        lambda m, z: m.decode(z, return_dict=False)[0],
        (floats(*LATENTS),),
    )


def _clip() -> Iterator[Case]:
    t = required("transformers", "diffusers")
    texts = WIDTHS | {"vocab_size": 99, "max_position_embeddings": 16, "eos_token_id": 2}
    config = t.CLIPConfig(text_config=texts, vision_config=WIDTHS | PATCHES, projection_dim=8)
    clip = tiny.randomised(t.CLIPModel(config))
    yield Case(
        "CLIPModel, images",
        clip,
        lambda m, x: m.visual_projection(m.vision_model(pixel_values=x).pooler_output),
        (floats(2, 3, 16, 16),),
    )

    def of_texts(m: Any, ids: Any, mask: Any) -> Any:
        return m.text_projection(m.text_model(input_ids=ids, attention_mask=mask).pooler_output)

    weight = "text_model.embeddings.token_embedding.weight"
    yield Case("CLIPModel, texts with a mask", clip, of_texts, (IDS, MASK), weight=weight)


def _encoders() -> Iterator[Case]:
    t = required("transformers", "diffusers")
    t5 = t.T5Config(vocab_size=99, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    yield Case(
        "T5EncoderModel, mask",
        tiny.randomised(t.T5EncoderModel(t5)),
        lambda m, i, k: m(input_ids=i, attention_mask=k).last_hidden_state,
        (IDS, MASK),
        weight="shared.weight",
    )
    yield Case(
        "Dinov2Model",
        tiny.randomised(t.Dinov2Model(t.Dinov2Config(**WIDTHS, **PATCHES))),
        lambda m, x: m(pixel_values=x).pooler_output,
        (floats(2, 3, 16, 16),),
    )
    efficient = t.EfficientNetConfig(
        image_size=32,
        width_coefficient=0.25,
        depth_coefficient=0.25,
        hidden_dim=320,  # that of its last convolution
        num_hidden_layers=16,
        dropout_rate=0.0,
    )
    yield Case(
        "EfficientNetModel",
        tiny.randomised(t.EfficientNetModel(efficient)),
        lambda m, x: m(pixel_values=x).pooler_output,
        (floats(2, 3, 32, 32),),
    )
