"""Models of PyTorch and diffusers: made, measured against, and sampled by them."""
