"""Handwritten digits, 8x8, with an under-trained denoiser: guidance has something to do.

Header with command, time, hardware and expected numbers: see the end of the experiment.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """The defaults are this experiment."""
    return default.get_config()
