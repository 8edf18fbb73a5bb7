"""Experiments of many runs: sweeps over a configuration, comparisons of methods, and the paper's tables."""
