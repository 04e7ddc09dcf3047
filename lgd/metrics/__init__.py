"""Distances between generated and real data, and the features they are measured on."""

from lgd.machinery.lazy import modules_of

__getattr__ = modules_of(__name__)
