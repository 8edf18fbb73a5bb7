"""Evaluation: metrics, named protocols, results, tables and pictures."""
