"""Guidance for a pretrained pipeline of diffusers, learned on a folder of images.

    python -m experiments.pretrained_guidance --model=PIPELINE --data=IMAGES --workdir=runs/mine

PIPELINE is a folder that diffusers saved, IMAGES one with a folder for every class, or images with
captions in metadata.jsonl, see docs/pretrained.md. Without these flags they are the folders
``pipeline`` and ``images``. Every field can be set, as in experiments.run.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """Return the defaults with what a pipeline and some thousands of images ask for."""
    config = default.get_config()
    config.data.name = "images"
    config.data.size = 64
    config.data.num_train = 2000
    config.data.num_validation = 1000
    config.data.num_test = 1000
    config.data.path = "images"
    config.denoiser.level = "pretrained"
    config.denoiser.pipeline = "pipeline"
    config.sampling.grid = "scheduler"
    config.guidance.methods = ("self_consistency",)
    config.evaluation.primary = "frechet_distance"
    config.evaluation.num_samples = 1000
    config.evaluation.num_screening = 500
    config.evaluation.validation_seeds = 1
    config.evaluation.test_seeds = 3
    config.evaluation.interval_weights = (0.25, 0.5, 1.0, 2.0, 4.0)
    config.evaluation.interval_lower = (0.0, 0.15, 0.3, 0.5)
    config.evaluation.interval_upper = (0.35, 0.5, 0.65, 0.8, 1.0)
    config.evaluation.families = ("constant", "limited_interval", "clamp_linear")
    config.classifier.network = "conv"
    config.classifier.num_steps = 1000
    config.classifier.num_features = 64
    config.features.network = "mlp"
    config.features.num_features = 64
    return config
