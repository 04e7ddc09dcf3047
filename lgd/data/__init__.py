"""Data sets in three splits, and batches that are functions of the training step."""

from lgd.data.dataset import Dataset, FileImages, Split, labelled

__all__ = ["Dataset", "FileImages", "Split", "labelled"]
