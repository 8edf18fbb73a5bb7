"""From scores of images to means: of all, of groups, and how far a mean may be off."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kpac.evaluation.metrics import METRICS

RESAMPLES, SEED, LEVEL = 10_000, 0, 0.95


def mean_scores(records: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The mean over images of every metric, of records or of their "input" entries."""
    return {name: sum(values) / len(values) for name, values in _columns(records).items()}


def group_means(records: Sequence[dict[str, Any]], groups: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Means over the images that carry a label, for every label that some image has.

    Returns:
        Group -> {"images": number of them, "mean", "input_mean"}.
    """
    found = {}
    for group in groups:
        members = [record for record in records if record.get("group") == group]
        if members:
            inputs = [record["input"] for record in members]
            found[group] = {
                "images": len(members),
                "mean": mean_scores(members),
                "input_mean": mean_scores(inputs),
            }
    return found


def confidence(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Percentile bootstrap of the means over images (Efron and Tibshirani, 1993, chapter 13), with a fixed seed.

    It says how much a mean would move with other images of the same kind, not with other training seeds.

    Returns:
        "level", "resamples", "seed", and "interval": metric -> [low, high]; no interval for one image, or for values
        that are not finite.
    """
    intervals = {}
    for name, values in _columns(records).items():
        if len(values) < 2 or not np.isfinite(values).all():
            continue
        chosen = np.random.default_rng(SEED).integers(len(values), size=(RESAMPLES, len(values)))
        means = np.asarray(values)[chosen].mean(axis=1)
        low, high = np.quantile(means, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
        intervals[name] = [float(low), float(high)]
    return {"level": LEVEL, "resamples": RESAMPLES, "seed": SEED, "interval": intervals}


def _columns(records: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    return {name: [record[name] for record in records] for name in METRICS if records and name in records[0]}
