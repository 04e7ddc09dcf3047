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

    network: the attribute of the pipeline that holds it. call: the prediction of
    ``call(pipeline, network, x, timestep, c)`` on tensors. encode: ``encode(pipeline, texts)``, the
    condition of each text: "tokens" with their "mask", and perhaps "pooled"; None: conditions are
    labels.
    """

    network: str
    call: Callable[[Any, Any, Any, Any, Any], Any]
    encode: Callable[[Any, Sequence[str]], Tensors] | None = None


def _stable_diffusion(pipeline: Any, network: Any, x: Any, timestep: Any, c: Any) -> Any:
    return network(x, timestep, encoder_hidden_states=c["text"]["tokens"], return_dict=False)[0]


def _encode_stable_diffusion(pipeline: Any, texts: Sequence[str]) -> Tensors:
    text, _ = pipeline.encode_prompt(list(texts), pipeline.device, 1, False)
    return {"text": _tokens(text)}


def _sdxl(pipeline: Any, network: Any, x: Any, timestep: Any, c: Any) -> Any:
    """The call of the U-Net of SDXL, with the time ids of an image that is not cropped."""
    torch = required("torch", "torch")
    size = [side * pipeline.vae_scale_factor for side in x.shape[-2:]]
    ids = torch.tensor([*size, 0, 0, *size], dtype=x.dtype)
    added = {"text_embeds": c["pooled"], "time_ids": ids.repeat(len(x), 1)}
    return network(
        x,
        timestep,
        encoder_hidden_states=c["text"]["tokens"],
        added_cond_kwargs=added,
        return_dict=False,
    )[0]


def _encode_sdxl(pipeline: Any, texts: Sequence[str]) -> Tensors:
    text, _, pooled, _ = pipeline.encode_prompt(
        list(texts), num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    return {"text": _tokens(text), "pooled": pooled}


def _sd3(pipeline: Any, network: Any, x: Any, timestep: Any, c: Any) -> Any:
    return network(
        hidden_states=x,
        timestep=timestep,
        encoder_hidden_states=c["text"]["tokens"],
        pooled_projections=c["pooled"],
        return_dict=False,
    )[0]


def _encode_sd3(pipeline: Any, texts: Sequence[str]) -> Tensors:
    text, _, pooled, _ = pipeline.encode_prompt(
        list(texts), None, None, do_classifier_free_guidance=False
    )
    return {"text": _tokens(text), "pooled": pooled}


def _dit(pipeline: Any, network: Any, x: Any, timestep: Any, c: Any) -> Any:
    return network(x, timestep=timestep, class_labels=c, return_dict=False)[0]


def _unet(pipeline: Any, network: Any, x: Any, timestep: Any, c: Any) -> Any:
    return network(x, timestep, class_labels=c, return_dict=False)[0]


def _pixart(pipeline: Any, network: Any, x: Any, timestep: Any, c: Any) -> Any:
    return network(
        x,
        encoder_hidden_states=c["text"]["tokens"],
        encoder_attention_mask=c["text"]["mask"].to(x.dtype),
        timestep=timestep,
        added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        return_dict=False,
    )[0]


def _encode_pixart(pipeline: Any, texts: Sequence[str]) -> Tensors:
    text, mask, _, _ = pipeline.encode_prompt(list(texts), do_classifier_free_guidance=False)
    return {"text": _tokens(text, mask)}


def _flux(pipeline: Any, network: Any, x: Any, timestep: Any, c: Any) -> Any:
    """Latents packed into tokens by blocks of 2x2; an embedded scale, if there is one, is 1."""
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
        guidance=torch.ones(b) if network.config.guidance_embeds else None,
        pooled_projections=c["pooled"],
        encoder_hidden_states=c["text"]["tokens"],
        txt_ids=torch.zeros(c["text"]["tokens"].shape[1], 3),
        img_ids=where.reshape(-1, 3),
        return_dict=False,
    )[0]
    blocks = out.reshape(b, rows, columns, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return blocks.reshape(b, channels, height, width)


def _encode_flux(pipeline: Any, texts: Sequence[str]) -> Tensors:
    text, pooled, _ = pipeline.encode_prompt(list(texts), None)
    return {"text": _tokens(text), "pooled": pooled}


def _tokens(tokens: Any, mask: Any = None) -> Tensors:
    """Tokens (b, n, e) with a mask (b, n), of which networks without a mask take all."""
    if mask is None:
        mask = required("torch", "torch").ones(tokens.shape[:2])
    return {"tokens": tokens, "mask": mask.bool()}


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
