"""Tiny pipelines of diffusers with random weights, to try code without a download.

    pipe = lgd.exchange.diffusers.tiny.class_conditional()

No weight is 0, so that every layer counts. Latents are 4 x 8 x 8, images 16 x 16 or less.
"""

from typing import Any

from lgd.exchange.extras import required

STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
TOKEN = 8  # width of the tokens of a text


def randomised(module: Any, seed: int = 0) -> Any:
    """The module with weights drawn anew, in evaluation mode."""
    torch = required("torch", "diffusers")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            scale = 0.3 / max(1.0, parameter[0].numel() if parameter.ndim > 1 else 1.0) ** 0.5
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def vae(latent_channels: int = 4) -> Any:
    """An AutoencoderKL of images with 3 channels, whose latents have their size."""
    return randomised(
        required("diffusers", "diffusers").AutoencoderKL(
            in_channels=3,
            out_channels=3,
            down_block_types=("DownEncoderBlock2D",),
            up_block_types=("UpDecoderBlock2D",),
            block_out_channels=(8,),
            latent_channels=latent_channels,
            norm_num_groups=4,
            sample_size=16,
            shift_factor=0.1,
        )
    )


def unet(**more: Any) -> Any:
    """A UNet2DConditionModel that attends to tokens."""
    settings = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": ("CrossAttnDownBlock2D",),
        "up_block_types": ("CrossAttnUpBlock2D",),
        "block_out_channels": (16,),
        "layers_per_block": 1,
        "cross_attention_dim": TOKEN,
        "attention_head_dim": 8,
        "norm_num_groups": 8,
    }
    return randomised(required("diffusers", "diffusers").UNet2DConditionModel(**settings | more))


def unet_xl() -> Any:
    """A UNet2DConditionModel as SDXL has it, which also takes a pooled text and time ids."""
    return unet(
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + TOKEN,
        transformer_layers_per_block=1,
    )


def dit() -> Any:
    """A DiTTransformer2DModel of 1000 labels."""
    return randomised(
        required("diffusers", "diffusers").DiTTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            sample_size=8,
            patch_size=2,
            num_embeds_ada_norm=1000,  # the pipeline calls "no class" 1000
            norm_num_groups=8,
        )
    )


def sd3() -> Any:
    """An SD3Transformer2DModel."""
    return randomised(
        required("diffusers", "diffusers").SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=TOKEN,
            caption_projection_dim=16,
            pooled_projection_dim=TOKEN,
            out_channels=4,
            pos_embed_max_size=8,
        )
    )


def pixart_transformer() -> Any:
    """A PixArtTransformer2DModel with variances beside its output."""
    return randomised(
        required("diffusers", "diffusers").PixArtTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            in_channels=4,
            out_channels=8,
            num_layers=2,
            sample_size=8,
            patch_size=2,
            cross_attention_dim=16,
            caption_channels=TOKEN,
            use_additional_conditions=False,
        )
    )


def flux_transformer() -> Any:
    """A FluxTransformer2DModel of latents packed by blocks of 2x2."""
    return randomised(
        required("diffusers", "diffusers").FluxTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=TOKEN,
            pooled_projection_dim=TOKEN,
            guidance_embeds=False,
            axes_dims_rope=(4, 6, 6),
        )
    )


def stable_diffusion(scheduler: Any = None) -> Any:
    """A StableDiffusionPipeline without a text encoder."""
    diffusers = required("diffusers", "diffusers")
    return _quiet(
        diffusers.StableDiffusionPipeline(
            vae=vae(),
            text_encoder=None,
            tokenizer=None,
            unet=unet(),
            scheduler=scheduler or diffusers.DDIMScheduler(**STABLE_DIFFUSION, clip_sample=False),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    )


def stable_diffusion_xl(scheduler: Any = None) -> Any:
    """A StableDiffusionXLPipeline without text encoders."""
    diffusers = required("diffusers", "diffusers")
    return _quiet(
        diffusers.StableDiffusionXLPipeline(
            vae=vae(),
            text_encoder=None,
            text_encoder_2=None,
            tokenizer=None,
            tokenizer_2=None,
            unet=unet_xl(),
            scheduler=scheduler or diffusers.EulerDiscreteScheduler(**STABLE_DIFFUSION),
            add_watermarker=False,
        )
    )


def stable_diffusion_3(scheduler: Any = None) -> Any:
    """A StableDiffusion3Pipeline without text encoders."""
    diffusers = required("diffusers", "diffusers")
    return _quiet(
        diffusers.StableDiffusion3Pipeline(
            transformer=sd3(),
            vae=vae(),
            scheduler=scheduler or diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
            text_encoder=None,
            text_encoder_2=None,
            text_encoder_3=None,
            tokenizer=None,
            tokenizer_2=None,
            tokenizer_3=None,
        )
    )


def class_conditional(scheduler: Any = None) -> Any:
    """A DiTPipeline."""
    diffusers = required("diffusers", "diffusers")
    scheduler = scheduler or diffusers.DDIMScheduler(clip_sample=False)
    return _quiet(diffusers.DiTPipeline(transformer=dit(), vae=vae(), scheduler=scheduler))


def pixart(scheduler: Any = None) -> Any:
    """A PixArtAlphaPipeline without a text encoder."""
    diffusers = required("diffusers", "diffusers")
    return _quiet(
        diffusers.PixArtAlphaPipeline(
            tokenizer=None,
            text_encoder=None,
            vae=vae(),
            transformer=pixart_transformer(),
            scheduler=scheduler or diffusers.DDIMScheduler(clip_sample=False),
        )
    )


def flux(scheduler: Any = None) -> Any:
    """A FluxPipeline without text encoders."""
    diffusers = required("diffusers", "diffusers")
    return _quiet(
        diffusers.FluxPipeline(
            scheduler=scheduler or diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=vae(),
            text_encoder=None,
            tokenizer=None,
            text_encoder_2=None,
            tokenizer_2=None,
            transformer=flux_transformer(),
        )
    )


def with_texts() -> Any:
    """Stable Diffusion with a text encoder, and a tokenizer of single letters."""
    transformers = required("transformers", "diffusers")
    vocab = {letter + end: 0 for letter in "abcdefghijklmnopqrstuvwxyz" for end in ("", "</w>")}
    names = [*vocab, "<|startoftext|>", "<|endoftext|>"]
    tokenizer = transformers.CLIPTokenizer(
        vocab={name: number for number, name in enumerate(names)}, merges=[], model_max_length=16
    )
    config = transformers.CLIPTextConfig(
        vocab_size=len(names),
        hidden_size=TOKEN,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    pipe = stable_diffusion()
    encoder = randomised(transformers.CLIPTextModel(config))
    pipe.register_modules(text_encoder=encoder, tokenizer=tokenizer)
    return pipe


def _quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe
