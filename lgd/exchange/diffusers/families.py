"""How each family of diffusers' pipelines calls its network, and what its conditions are.

A new family is a row of `FAMILIES`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lgd.exchange.extras import required

Tensors = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """One row of `FAMILIES`.

    network: the attribute of the pipeline that holds it. call: ``call(network, x, timestep, c)`` on
    tensors, the prediction. encode: ``encode(pipeline, texts)``, the condition of each text, by
    name; None: conditions are labels.
    """

    network: str
    call: Callable[[Any, Any, Any, Any], Any]
    encode: Callable[[Any, Sequence[str]], Tensors] | None = None


def _stable_diffusion(network: Any, x: Any, timestep: Any, c: Any) -> Any:
    return network(x, timestep, encoder_hidden_states=c["text"], return_dict=False)[0]


def _encode_stable_diffusion(pipeline: Any, texts: Sequence[str]) -> Tensors:
    text, _ = pipeline.encode_prompt(list(texts), pipeline.device, 1, False)
    return {"text": text}


def _sdxl(network: Any, x: Any, timestep: Any, c: Any) -> Any:
    added = {"text_embeds": c["pooled"], "time_ids": c["time_ids"]}
    return network(
        x,
        timestep,
        encoder_hidden_states=c["text"],
        added_cond_kwargs=added,
        return_dict=False,
    )[0]


def _encode_sdxl(pipeline: Any, texts: Sequence[str]) -> Tensors:
    """With the time ids of an uncropped image of the pipeline's own size."""
    torch = required("torch", "torch")
    text, _, pooled, _ = pipeline.encode_prompt(
        list(texts), num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    size = pipeline.default_sample_size * pipeline.vae_scale_factor
    ids = torch.tensor([size, size, 0, 0, size, size], dtype=text.dtype)
    return {"text": text, "pooled": pooled, "time_ids": ids.repeat(len(texts), 1)}


def _sd3(network: Any, x: Any, timestep: Any, c: Any) -> Any:
    return network(
        hidden_states=x,
        timestep=timestep,
        encoder_hidden_states=c["text"],
        pooled_projections=c["pooled"],
        return_dict=False,
    )[0]


def _encode_sd3(pipeline: Any, texts: Sequence[str]) -> Tensors:
    text, _, pooled, _ = pipeline.encode_prompt(
        list(texts), None, None, do_classifier_free_guidance=False
    )
    return {"text": text, "pooled": pooled}


def _dit(network: Any, x: Any, timestep: Any, c: Any) -> Any:
    return network(x, timestep=timestep, class_labels=c, return_dict=False)[0]


def _unet(network: Any, x: Any, timestep: Any, c: Any) -> Any:
    return network(x, timestep, class_labels=c, return_dict=False)[0]


def _pixart(network: Any, x: Any, timestep: Any, c: Any) -> Any:
    return network(
        x,
        encoder_hidden_states=c["text"],
        encoder_attention_mask=c["mask"],
        timestep=timestep,
        added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        return_dict=False,
    )[0]


def _encode_pixart(pipeline: Any, texts: Sequence[str]) -> Tensors:
    text, mask, _, _ = pipeline.encode_prompt(list(texts), do_classifier_free_guidance=False)
    return {"text": text, "mask": mask}


def _flux(network: Any, x: Any, timestep: Any, c: Any) -> Any:
    """Latents in blocks of 2x2, which the pipeline packs into tokens."""
    torch = required("torch", "torch")
    b, channels, height, width = x.shape
    rows, columns = height // 2, width // 2
    tokens = x.reshape(b, channels, rows, 2, columns, 2).permute(0, 2, 4, 1, 3, 5)
    where = torch.stack(
        [
            torch.zeros(rows, columns),
            torch.arange(rows)[:, None].expand(rows, columns),
            torch.arange(columns)[None].expand(rows, columns),
        ],
        dim=-1,
    )
    out = network(
        hidden_states=tokens.reshape(b, rows * columns, 4 * channels),
        timestep=timestep / 1000.0,
        guidance=c.get("guidance"),
        pooled_projections=c["pooled"],
        encoder_hidden_states=c["text"],
        txt_ids=torch.zeros(c["text"].shape[1], 3),
        img_ids=where.reshape(-1, 3),
        return_dict=False,
    )[0]
    blocks = out.reshape(b, rows, columns, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return blocks.reshape(b, channels, height, width)


def _encode_flux(pipeline: Any, texts: Sequence[str]) -> Tensors:
    """With the embedded scale 1 where the network is distilled to take one."""
    torch = required("torch", "torch")
    text, pooled, _ = pipeline.encode_prompt(list(texts), None)
    c = {"text": text, "pooled": pooled}
    if pipeline.transformer.config.guidance_embeds:
        c["guidance"] = torch.ones(len(texts))
    return c


FAMILIES: dict[str, Family] = {
    "StableDiffusionPipeline": Family(
        network="unet", call=_stable_diffusion, encode=_encode_stable_diffusion
    ),
    "StableDiffusionXLPipeline": Family(network="unet", call=_sdxl, encode=_encode_sdxl),
    "StableDiffusion3Pipeline": Family(network="transformer", call=_sd3, encode=_encode_sd3),
    "PixArtAlphaPipeline": Family(network="transformer", call=_pixart, encode=_encode_pixart),
    "PixArtSigmaPipeline": Family(network="transformer", call=_pixart, encode=_encode_pixart),
    "FluxPipeline": Family(network="transformer", call=_flux, encode=_encode_flux),
    "DiTPipeline": Family(network="transformer", call=_dit),
    "DDPMPipeline": Family(network="unet", call=_unet),
    "DDIMPipeline": Family(network="unet", call=_unet),
}
