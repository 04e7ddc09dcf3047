"""Data sets in three splits, and batches that are functions of the training step."""

from lgd.data.dataset import Dataset, FileImages, Split, labelled
from lgd.machinery.lazy import modules_of

__all__ = ["Dataset", "FileImages", "Split", "labelled"]

__getattr__ = modules_of(__name__)
