"""A test of all stages in under a minute, whose numbers mean nothing.

    python -m experiments.run --config=configs/smoke.py --workdir=runs/smoke

It checks an installation.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """Return settings for digits, with a tiny network and a few steps of everything."""
    config = default.get_config()
    config.denoiser.num_steps.under = 30
    config.denoiser.width = 32
    config.denoiser.depth = 1
    config.sampling.num_steps = 4
    config.guidance.methods = ("self_consistency", "trajectory")
    config.guidance.num_snapshots = 2
    config.guidance.one_step.num_steps = 10
    config.guidance.one_step.batch_size = 32
    config.guidance.trajectory.num_steps = 10
    config.guidance.trajectory.num_particles = 8
    config.guidance.trajectory.num_targets = 8
    config.evaluation.num_samples = 100
    config.evaluation.num_screening = 50
    config.evaluation.num_finalists = 2
    config.evaluation.validation_seeds = 1
    config.evaluation.test_seeds = 2
    config.evaluation.constant_weights = (0.0, 0.5, 1.0)
    config.evaluation.interval_weights = (0.5, 1.0)
    config.evaluation.interval_lower = (0.0, 0.3)
    config.evaluation.interval_upper = (0.7, 1.0)
    config.evaluation.clamp_linear_scales = (0.5, 1.0)
    config.classifier.num_steps = 30
    return config
