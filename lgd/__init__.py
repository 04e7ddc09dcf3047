"""Learned guidance for diffusion models, in JAX."""
