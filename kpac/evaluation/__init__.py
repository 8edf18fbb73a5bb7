"""Evaluation: metrics, named protocols, scoring and results."""
