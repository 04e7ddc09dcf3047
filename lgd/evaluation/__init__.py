"""The protocol: tune every opponent on validation data, report once on test data.

All candidates of a search share their noise, so that differences are of the schedules. Validation
and test use different real data and different seeds. Grids whose best value lies at an edge grow.
"""

from lgd.evaluation.generator import Generator
from lgd.evaluation.search import (
    MAX_GROWTH,
    Coordinates,
    Found,
    Grid,
    Score,
    Screened,
    screen,
    search,
    search_per_class,
)
from lgd.evaluation.seeds import paired_difference, summary

__all__ = [
    "MAX_GROWTH",
    "Coordinates",
    "Found",
    "Generator",
    "Grid",
    "Score",
    "Screened",
    "paired_difference",
    "screen",
    "search",
    "search_per_class",
    "summary",
]
