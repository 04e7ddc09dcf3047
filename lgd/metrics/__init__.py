"""Distances between generated and real data, and the features they are measured on."""
