"""Data sets in three splits, and batches that are functions of the step."""

from lgd.data.dataset import Dataset, Split

__all__ = ["Dataset", "Split"]
