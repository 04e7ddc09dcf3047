"""Fashion-MNIST, 28x28, with a small residual MLP that guidance can help, on a CPU.

    python -m experiments.run --config=configs/fashion_mnist.py --workdir=runs/fashion_mnist

The images come with Debian's package dataset-fashion-mnist; --config.data.path names files that lie
elsewhere. --config.denoiser.level: under, middle (default), well.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """Differences from the defaults."""
    config = default.get_config()
    config.data.name = "fashion_mnist"
    config.data.path = "/usr/share/datasets/fashion-mnist"
    config.data.num_train = 50_000
    config.data.num_validation = 10_000
    config.data.num_test = 10_000
    config.denoiser.level = "middle"
    config.denoiser.num_steps.under = 500
    config.denoiser.num_steps.middle = 1500
    config.denoiser.num_steps.well = 4000
    # Above the 784 pixels: a narrower network cannot pass on the noise that a velocity holds.
    # At 512 samples stay noisy: 1,500 steps leave an energy distance of 0.98 instead of 0.15.
    config.denoiser.width = 1024
    # One run of 2,000 samples takes 8 seconds on two cores: less of everything that draws many.
    config.guidance.trajectory.num_steps = 100
    config.guidance.trajectory.num_particles = 20
    config.evaluation.validation_seeds = 1
    config.evaluation.test_seeds = 3
    # Fewer intervals than the default, spread wider; the grid grows where its best is at an edge.
    config.evaluation.interval_weights = (0.25, 0.5, 1.0, 2.0, 4.0)
    config.evaluation.interval_lower = (0.0, 0.15, 0.3, 0.5)
    config.evaluation.interval_upper = (0.2, 0.35, 0.5, 0.65, 0.8, 1.0)
    config.classifier.num_steps = 2000
    config.classifier.width = 256
    config.classifier.num_features = 64
    config.classifier.batch_size = 256
    config.training.save_every = 500
    return config
