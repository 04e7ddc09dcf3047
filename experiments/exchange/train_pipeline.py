"""Train a small pipeline of diffusers, a latent DiT, in PyTorch on images with labels.

    python -m experiments.studies train_pipeline --config=configs/fashion_mnist.py --out=runs/dit

An AutoencoderKL comes first, then a DiTTransformer2DModel that predicts eps of its latents and
learns without labels at times; both are saved as a DiTPipeline in the folder ``pipeline``. Only
the train split of the config is used. The same command goes on where it was stopped. Needs the
extra ``lgd[diffusers]``.
"""

import os
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from experiments import build
from experiments import config as configs
from experiments.console import local_path
from experiments.publish.markdown import number, text
from experiments.publish.study import Add, Study
from lgd.exchange.extras import required
from lgd.machinery.progress import bar

BATCH = 128
SAVE_EVERY = 250
LEARNING_RATE = {"autoencoder": 2e-3, "transformer": 1e-3}
EMA_DECAY = 0.999
KL_WEIGHT = 1e-4  # of the autoencoder's latents, by pixel

Loss = Callable[[Any, Any, Any], Any]  # (module, x, labels) -> a number


def measure(options: Namespace) -> dict[str, Any]:
    """Train, save the pipeline, and return a row for each network."""
    torch, diffusers = required("torch", "diffusers"), required("diffusers", "diffusers")
    torch.set_num_threads(options.threads or os.cpu_count() or 1)
    dataset = build.dataset(configs.load(options.config, options.set))
    images = torch.as_tensor(np.moveaxis(np.asarray(dataset.train.x[:]), -1, 1).copy())
    labels = torch.as_tensor(np.array(dataset.train.c), dtype=torch.long)
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    vae, scheduler = autoencoder(images.shape[1:]), diffusers.DDIMScheduler(clip_sample=False)
    rows = [
        fit("autoencoder", vae, _reconstruction, images, labels, options.vae_steps, options.out)
    ]
    latents = _encoded(vae, images)
    vae.register_to_config(scaling_factor=1.0 / float(latents.std()))
    latents = latents * vae.config.scaling_factor
    network = transformer(latents.shape[1:])
    loss = _denoising(scheduler)
    rows += [fit("transformer", network, loss, latents, labels, options.steps, options.out)]
    pipeline = diffusers.DiTPipeline(network, vae, scheduler)
    pipeline.save_pretrained(options.out / "pipeline")
    columns = [
        text("network", "network"),
        number("parameters", "parameters", ",.0f"),
        number("steps", "steps", ",.0f"),
        number("loss", "loss of the last hundred steps", ".4f"),
    ]
    return {"columns": columns, "rows": rows}


def autoencoder(shape: tuple[int, ...]) -> Any:
    """An untrained AutoencoderKL of images (channels, h, w), with latents (4, h / 4, w / 4)."""
    diffusers = required("diffusers", "diffusers")
    return diffusers.AutoencoderKL(
        in_channels=shape[0],
        out_channels=shape[0],
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 16, 32),
        latent_channels=4,
        norm_num_groups=4,
        sample_size=shape[-1],
    )


def transformer(shape: tuple[int, ...]) -> Any:
    """An untrained DiTTransformer2DModel of latents (channels, h, w), a token for each pixel."""
    diffusers = required("diffusers", "diffusers")
    return diffusers.DiTTransformer2DModel(
        num_attention_heads=3,
        attention_head_dim=32,
        in_channels=shape[0],
        out_channels=shape[0],
        num_layers=4,
        sample_size=shape[-1],
        patch_size=1,
        num_embeds_ada_norm=1000,  # the pipeline takes 1000 for no class
    )


def fit(
    name: str, module: Any, loss: Loss, x: Any, labels: Any, num_steps: int, folder: Path
) -> dict[str, Any]:
    """Train a module in place, up to its averaged weights, and return its row.

    Args:
      name: of the network, one of `LEARNING_RATE`, and of its file.
      module: the network.
      loss: what is minimised.
      x: examples (n, channels, h, w).
      labels: (n,).
      num_steps: of `BATCH` examples each.
      folder: where its state is kept.
    """
    torch, file = required("torch", "diffusers"), folder / f"{name}.pt"
    average = torch.optim.swa_utils.AveragedModel(module, avg_fn=averaged)
    optimizer = torch.optim.AdamW(module.parameters(), lr=LEARNING_RATE[name], weight_decay=0.0)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_steps)
    parts = {"module": module, "average": average, "optimizer": optimizer, "decay": decay}
    losses: list[float] = []
    if file.exists():
        state = torch.load(file, weights_only=True)
        losses = state.pop("losses")
        for key, value in state.items():
            parts[key].load_state_dict(value)
    module.train()
    with bar(f"train {name}", num_steps) as advance:
        for step in range(num_steps):
            advance(f"{np.mean(losses[-100:]):.4f}" if losses else "")
            if step < len(losses):
                continue
            generator = torch.Generator().manual_seed(step)
            torch.manual_seed(step)  # of noise and of labels that are left out
            index = torch.randint(len(x), (BATCH,), generator=generator)
            value = loss(module, x[index], labels[index])
            optimizer.zero_grad()
            value.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            decay.step()
            average.update_parameters(module)
            losses.append(float(value.detach()))
            if len(losses) % SAVE_EVERY == 0 or len(losses) == num_steps:
                _save(
                    file, {k: each.state_dict() for k, each in parts.items()} | {"losses": losses}
                )
    module.load_state_dict(average.module.state_dict())
    module.eval().requires_grad_(False)
    size = sum(each.numel() for each in module.parameters())
    return {"network": name, "parameters": size, "steps": num_steps, "loss": np.mean(losses[-100:])}


def averaged(average: Any, value: Any, count: Any) -> Any:
    """The moving average after one value more, of ``count`` so far.

    Its decay grows to `EMA_DECAY`, so that little is left of where a short training started:
    10! / n^10 after n steps.
    """
    return average + (value - average) * max(1.0 - EMA_DECAY, 10.0 / (float(count) + 10.0))


def _save(file: Path, state: dict[str, Any]) -> None:
    """Save the state by way of a draft, so that a kill leaves the one before."""
    draft = file.with_suffix(".draft")
    required("torch", "diffusers").save(state, draft)
    draft.replace(file)


def _reconstruction(vae: Any, x: Any, labels: Any) -> Any:
    """Squared error of images through a draw of their latents, and a little of the KL term."""
    law = vae.encode(x).latent_dist
    error = (vae.decode(law.sample(), return_dict=False)[0] - x).square().mean()
    return error + KL_WEIGHT * law.kl().mean() / x[0].numel()


def _denoising(scheduler: Any) -> Loss:
    """Squared error of eps at a timestep drawn uniformly."""
    torch = required("torch", "diffusers")

    def loss(network: Any, x: Any, labels: Any) -> Any:
        noise = torch.randn_like(x)
        timestep = torch.randint(scheduler.config.num_train_timesteps, (len(x),))
        noised = scheduler.add_noise(x, noise, timestep)
        output = network(noised, timestep=timestep, class_labels=labels, return_dict=False)[0]
        return (output - noise).square().mean()

    return loss


def _encoded(vae: Any, images: Any) -> Any:
    """Means of the latents of images, not yet scaled."""
    torch = required("torch", "diffusers")
    with torch.no_grad():
        return torch.cat([vae.encode(some).latent_dist.mean for some in images.split(1000)])


def _arguments(add: Add) -> None:
    add("--config", required=True, help="config whose data are used")
    add("--set", action="append", default=[], help="FIELD=VALUE of the config; may be repeated")
    add(
        "--out",
        type=local_path,
        required=True,
        help="folder for the pipeline and the state of training",
    )
    add("--vae_steps", type=int, default=600, help="training steps of the autoencoder")
    add("--steps", type=int, default=3000, help="training steps of the transformer")
    add("--threads", type=int, default=0, help="threads of PyTorch; 0: as many as processors")


STUDY = Study(measure=measure, arguments=_arguments, refused=(ImportError,), is_published=False)
