"""Tables and documents made from experiments/results/."""
