"""Guidance found by direct search: by samples and distances alone, without gradients."""

from lgd.direct.path import path_guidance
from lgd.direct.settings import PathSettings

__all__ = ["PathSettings", "path_guidance"]
