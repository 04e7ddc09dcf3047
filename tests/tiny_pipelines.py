"""Tiny pipelines of diffusers with random weights, made in memory from their config classes."""

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def randomised(module, seed=0):
    """The module with weights that leave no layer at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            scale = 0.3 / max(1.0, parameter[0].numel() if parameter.ndim > 1 else 1.0) ** 0.5
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def vae():
    return randomised(
        AutoencoderKL(
            in_channels=3,
            out_channels=3,
            down_block_types=("DownEncoderBlock2D",),
            up_block_types=("UpDecoderBlock2D",),
            block_out_channels=(8,),
            latent_channels=4,
            norm_num_groups=4,
            sample_size=16,
            shift_factor=0.1,
        )
    )


def unet():
    return randomised(
        UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            down_block_types=("CrossAttnDownBlock2D",),
            up_block_types=("CrossAttnUpBlock2D",),
            block_out_channels=(16,),
            layers_per_block=1,
            cross_attention_dim=8,
            attention_head_dim=8,
            norm_num_groups=8,
        )
    )


def dit():
    return randomised(
        DiTTransformer2DModel(
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


def sd3():
    return randomised(
        SD3Transformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=8,
            caption_projection_dim=16,
            pooled_projection_dim=8,
            out_channels=4,
            pos_embed_max_size=8,
        )
    )


def stable_diffusion(scheduler=None):
    pipe = StableDiffusionPipeline(
        vae=vae(),
        text_encoder=None,
        tokenizer=None,
        unet=unet(),
        scheduler=scheduler or DDIMScheduler(**STABLE_DIFFUSION, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def stable_diffusion_3(scheduler=None):
    pipe = StableDiffusion3Pipeline(
        transformer=sd3(),
        vae=vae(),
        scheduler=scheduler or FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=None,
        text_encoder_2=None,
        text_encoder_3=None,
        tokenizer=None,
        tokenizer_2=None,
        tokenizer_3=None,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def class_conditional(scheduler=None):
    scheduler = scheduler or DDIMScheduler(clip_sample=False)
    pipe = DiTPipeline(transformer=dit(), vae=vae(), scheduler=scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def with_texts():
    """Stable Diffusion with a text encoder, and a tokenizer of single letters."""
    vocab = {letter + end: 0 for letter in "abcdefghijklmnopqrstuvwxyz" for end in ("", "</w>")}
    names = [*vocab, "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(
        vocab={name: number for number, name in enumerate(names)}, merges=[], model_max_length=16
    )
    config = CLIPTextConfig(
        vocab_size=len(names),
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    pipe = stable_diffusion()
    pipe.register_modules(text_encoder=randomised(CLIPTextModel(config)), tokenizer=tokenizer)
    return pipe
