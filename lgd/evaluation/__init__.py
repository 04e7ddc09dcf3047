"""The protocol: tune every opponent on validation data, report once on test data.

All candidates of a search share their noise, so that differences are of the schedules. Validation
and test use different real data and different seeds. Grids whose best value lies at an edge grow.
"""

from lgd.evaluation.generator import Generator
from lgd.evaluation.journal import Journal, JournalError, schedule_key
from lgd.evaluation.search import (
    MAX_GROWTH,
    Coordinates,
    Grid,
    Score,
    Screened,
    Selected,
    grid_of,
    screen,
    search,
    search_apart,
)
from lgd.evaluation.seeds import paired_difference, summary

__all__ = [
    "MAX_GROWTH",
    "Coordinates",
    "Generator",
    "Grid",
    "Journal",
    "JournalError",
    "Score",
    "Screened",
    "Selected",
    "grid_of",
    "paired_difference",
    "schedule_key",
    "screen",
    "search",
    "search_apart",
    "summary",
]
