"""The launcher, its stages, and what they leave behind."""
