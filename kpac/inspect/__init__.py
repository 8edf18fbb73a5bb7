"""Inspection of a trained network: attention, kernels and receptive field, as numbers and as sheets."""
