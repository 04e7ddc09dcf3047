"""Handwritten digits, also guided away from a weaker snapshot of the denoiser (autoguidance).

    python -m experiments.run --config=configs/digits_directions.py --workdir=runs/digits_directions

The settings of configs/digits.py, with the denoiser after 150 of its 400 steps as a second
direction (Karras et al., 2024, arXiv 2406.02507): `learned:directions` learns a weight for
cond - uncond and one for cond - weaker, and is compared with two constants tuned together.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """Return the defaults with a weaker denoiser."""
    config = default.get_config()
    config.denoiser.weaker_num_steps = 150
    config.guidance.methods = ("self_consistency", "trajectory", "directions")
    config.evaluation.families = (*config.evaluation.families, "constant_directions")
    return config
