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


def cases() -> Iterator[Case]:
    """One case at a time, so that one network is in memory."""
    yield from _denoisers()
    yield from _autoencoders()
    yield from _encoders()


def _denoisers() -> Iterator[Case]:
    diffusers = required("diffusers", "diffusers")
    tokens, pooled = floats(2, 7, tiny.TOKEN), floats(2, tiny.TOKEN)
    labels = np.array([3, 7], np.int32)

    def case(name: str, module: Any, call: Callable[..., Any], *more: Any) -> Case:
        return Case(name, module, call, (floats(*LATENTS), TIME, *more), denoises=True)

    unet = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(16, 16),
        norm_num_groups=8,
        num_class_embeds=11,
    )
    yield case(
        "UNet2DModel, labels",
        tiny.randomised(unet),
        lambda m, x, t, c: m(x, t, class_labels=c, return_dict=False)[0],
        labels,
    )
    yield case(
        "UNet2DConditionModel",
        tiny.unet(),
        lambda m, x, t, c: m(x, t, encoder_hidden_states=c, return_dict=False)[0],
        tokens,
    )
    ids = np.tile(np.array([16, 16, 0, 0, 16, 16], np.float32), (2, 1))
    yield case(
        "UNet2DConditionModel of SDXL",
        tiny.unet_xl(),
        lambda m, x, t, c, p, i: m(
            x,
            t,
            encoder_hidden_states=c,
            added_cond_kwargs={"text_embeds": p, "time_ids": i},
            return_dict=False,
        )[0],
        tokens,
        pooled,
        ids,
    )
    yield case(
        "SD3Transformer2DModel",
        tiny.sd3(),
        lambda m, x, t, c, p: m(
            hidden_states=x,
            timestep=t,
            encoder_hidden_states=c,
            pooled_projections=p,
            return_dict=False,
        )[0],
        tokens,
        pooled,
    )
    yield case(
        "DiTTransformer2DModel",
        tiny.dit(),
        lambda m, x, t, c: m(x, timestep=t, class_labels=c, return_dict=False)[0],
        labels,
    )
    mask = np.array([[1] * 7, [1] * 4 + [0] * 3], np.float32)
    yield case(
        "PixArtTransformer2DModel, mask",
        tiny.pixart_transformer(),
        lambda m, x, t, c, k: m(
            x,
            encoder_hidden_states=c,
            encoder_attention_mask=k,
            timestep=t,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
            return_dict=False,
        )[0][:, :4],
        tokens,
        mask,
    )
    yield Case(
        "FluxTransformer2DModel",
        tiny.flux_transformer(),
        lambda m, x, t, c, p, a, b: m(
            hidden_states=x,
            timestep=t / 1000.0,
            encoder_hidden_states=c,
            pooled_projections=p,
            txt_ids=a,
            img_ids=b,
            return_dict=False,
        )[0],
        (
            floats(2, 16, 16),
            TIME,
            tokens,
            pooled,
            np.zeros((7, 3), np.float32),
            np.stack([np.zeros(16), np.arange(16) // 4, np.arange(16) % 4], 1).astype(np.float32),
        ),
        denoises=True,
    )


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


def _encoders() -> Iterator[Case]:
    t = required("transformers", "diffusers")
    texts = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
             "num_attention_heads": 2}  # fmt: skip
    images = texts | {"image_size": 16, "patch_size": 4}
    ids = RNG.integers(3, 90, size=(2, 9)).astype(np.int32)
    mask = np.array([[1] * 9, [1] * 5 + [0] * 4], np.int32)
    clip = tiny.randomised(
        t.CLIPModel(
            t.CLIPConfig(
                text_config=texts
                | {"vocab_size": 99, "max_position_embeddings": 16, "eos_token_id": 2},
                vision_config=images,
                projection_dim=8,
            )
        )
    )
    yield Case(
        "CLIPModel, images",
        clip,
        lambda m, x: m.visual_projection(m.vision_model(pixel_values=x).pooler_output),
        (floats(2, 3, 16, 16),),
    )
    yield Case(
        "CLIPModel, texts with a mask",
        clip,
        lambda m, i, k: m.text_projection(
            m.text_model(input_ids=i, attention_mask=k).pooler_output
        ),
        (ids, mask),
        weight="text_model.embeddings.token_embedding.weight",
    )
    t5 = t.T5EncoderModel(
        t.T5Config(vocab_size=99, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
    )
    yield Case(
        "T5EncoderModel, mask",
        tiny.randomised(t5),
        lambda m, i, k: m(input_ids=i, attention_mask=k).last_hidden_state,
        (ids, mask),
        weight="shared.weight",
    )
    yield Case(
        "Dinov2Model",
        tiny.randomised(t.Dinov2Model(t.Dinov2Config(**images))),
        lambda m, x: m(pixel_values=x).pooler_output,
        (floats(2, 3, 16, 16),),
    )
    efficient = t.EfficientNetConfig(
        image_size=32,
        width_coefficient=0.25,
        depth_coefficient=0.25,
        hidden_dim=64,
        num_hidden_layers=16,
        dropout_rate=0.0,
    )
    yield Case(
        "EfficientNetModel",
        tiny.randomised(t.EfficientNetModel(efficient)),
        lambda m, x: m(pixel_values=x).pooler_output,
        (floats(2, 3, 32, 32),),
    )
