"""Guidance found by direct search: by samples and distances alone, without gradients."""

from lgd.direct.path import path_guidance
from lgd.direct.search import search_guidance
from lgd.direct.settings import PathSettings, SearchSettings

__all__ = ["PathSettings", "SearchSettings", "path_guidance", "search_guidance"]
