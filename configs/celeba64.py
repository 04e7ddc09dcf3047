"""CelebA, 64x64, in 8 classes of three attributes, at the scale of the paper (arXiv 2510.00815).

    python -m experiments.run --config=configs/celeba64.py --workdir=runs/celeba64 --distributed

--config.fake_data=True measures throughput without data (--config.mesh.fsdp=1 on one device). The
images are `celeb_a` of TensorFlow Datasets, prepared once, see docs/data.md: the central square of
178x178, resized to 64x64. Classes are the combinations of the attributes Male, Smiling and Young.
Inception-v3 as in configs/imagenet64.py.

Hardware: devices whose number divides the batches of 256, for instance one host of 8 GPUs with
80 GB each. This run has not been made.
FID in the paper, with another denoiser and perhaps other conditions: unguided 2.44, limited
interval 2.37, learned 2.10.

Settings that the paper does not state are marked "chosen", here and in imagenet64.py.
"""

from ml_collections import ConfigDict

from configs import imagenet64


def get_config() -> ConfigDict:
    """Return the settings of ImageNet with the differences of this experiment."""
    config = imagenet64.get_config()
    config.data.path = "~/tensorflow_datasets/celeb_a"
    config.data.size = 64
    config.data.attributes = ("Male", "Smiling", "Young")  # chosen
    config.data.num_train = 152_770
    config.data.num_validation = 10_000  # chosen, of the training split
    config.data.num_test = 19_962  # the official test split

    config.denoiser.num_steps.well = 300_000  # chosen, as what follows
    config.denoiser.batch_size = 256
    config.denoiser.unet.channels = 128
    config.denoiser.unet.multipliers = (1, 2, 3, 4)
    config.denoiser.unet.attention = (16, 8)
    config.denoiser.heads = 4
    config.denoiser.remat = "none"

    config.evaluation.interval_weights = (0.2, 0.4, 0.7, 1.2, 2.4)
    config.evaluation.interval_lower = (0.0, 0.15, 0.3)
    return config
