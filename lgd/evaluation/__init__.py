"""The protocol: tune every opponent on validation data, report once on test data.

All candidates of a search share their noise, so that differences are of the schedules. Validation
and test use different real data and different seeds. Grids whose best value lies at an edge grow.
"""

from lgd.evaluation.compare import compare
from lgd.evaluation.comparison import Comparison, Curves, differences
from lgd.evaluation.distances import Distance, ValidationFrechet, ValidationInception
from lgd.evaluation.generator import Generator
from lgd.evaluation.journal import Journal, JournalError, schedule_key
from lgd.evaluation.measures import (
    ClassifierMeasure,
    EnergyMeasure,
    InceptionMeasure,
    JointMeasure,
    Measure,
    PlaneMeasure,
)
from lgd.evaluation.reach import Slopes, slopes
from lgd.evaluation.rewards import RewardMeasure, strata_rewards
from lgd.evaluation.rows import resampled_metrics
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
from lgd.evaluation.settings import CompareSettings
from lgd.evaluation.tuning import MemoryJournal, ValidationScore, num_candidates, tune
from lgd.evaluation.weights import guided_weight, squared_gap, weights_on_grid

__all__ = [
    "MAX_GROWTH",
    "ClassifierMeasure",
    "CompareSettings",
    "Comparison",
    "Coordinates",
    "Curves",
    "Distance",
    "EnergyMeasure",
    "Generator",
    "Grid",
    "InceptionMeasure",
    "JointMeasure",
    "Journal",
    "JournalError",
    "Measure",
    "MemoryJournal",
    "PlaneMeasure",
    "RewardMeasure",
    "Score",
    "Screened",
    "Selected",
    "Slopes",
    "ValidationFrechet",
    "ValidationInception",
    "ValidationScore",
    "compare",
    "differences",
    "grid_of",
    "guided_weight",
    "num_candidates",
    "paired_difference",
    "resampled_metrics",
    "schedule_key",
    "screen",
    "search",
    "search_apart",
    "slopes",
    "squared_gap",
    "strata_rewards",
    "summary",
    "tune",
    "weights_on_grid",
]
