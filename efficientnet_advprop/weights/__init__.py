"""Weights: checkpoints of runs and published ones."""
