"""Statistics of scores: means over images and groups, confidence intervals, and paired differences of two methods."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kpac.evaluation.metrics import METRIC_NAMES

RESAMPLES, SEED, LEVEL = 10_000, 0, 0.95


def mean_scores(records: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Mean over images of every metric, from records or from their "input" entries."""
    return {name: sum(values) / len(values) for name, values in _columns(records).items()}


def group_means(records: Sequence[dict[str, Any]], groups: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Means over the images with a label, for each label that occurs.

    Returns:
        Group -> {"images": number of images, "mean", "input_mean"}.
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

    The intervals show how much a mean varies with the choice of images, not with the training seed.

    Returns:
        "level", "resamples", "seed", and "interval": metric -> [low, high]. There is no interval for one image, or for
        values that are not finite.
    """
    intervals = {}
    for name, values in _columns(records).items():
        if len(values) < 2 or not np.isfinite(values).all():
            continue
        means = _resampled_means(np.asarray(values))
        low, high = np.quantile(means, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
        intervals[name] = [float(low), float(high)]
    return {"level": LEVEL, "resamples": RESAMPLES, "seed": SEED, "interval": intervals}


@dataclass(frozen=True)
class PairedDifference:
    """Difference of two methods on the same images in one metric."""

    mean: float  # mean of the differences, the method minus the other
    low: float  # low and high: ends of the confidence interval of the mean, at the level `LEVEL`
    high: float
    p: float  # two-sided p-value for no difference
    improved: int  # number of images on which the method is better
    images: int  # number of all images


def paired_difference(
    records: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]], metric: str, higher_is_better: bool
) -> PairedDifference | None:
    """Compares two methods image by image: percentile bootstrap of the mean difference, with a fixed seed.

    Images are resampled in pairs, so images that are easy or hard for both methods do not widen the interval (Efron and
    Tibshirani, 1993, chapters 13 and 16).

    Args:
        records, others: records of two results.json files, with the same names in any order.
        metric: name of the metric.
        higher_is_better: determines which images count as improved.

    Returns:
        The difference; None for fewer than two images, a metric that one method lacks, or differences that are not
        finite.
    """
    by_name = {other["name"]: other for other in others}
    pairs = [(record.get(metric), by_name[record["name"]].get(metric)) for record in records]
    known = [(one, other) for one, other in pairs if one is not None and other is not None]
    if len(known) < max(2, len(pairs)):
        return None
    differences = np.array([one - other for one, other in known])
    if not np.isfinite(differences).all():
        return None
    means = _resampled_means(differences)
    low, high = np.quantile(means, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    tail = min(np.count_nonzero(means <= 0), np.count_nonzero(means >= 0))
    p = min(1.0, 2 * (tail + 1) / (RESAMPLES + 1))  # + 1 counts the observed sample, so p is never zero
    better = differences > 0 if higher_is_better else differences < 0
    return PairedDifference(float(differences.mean()), float(low), float(high), p, int(better.sum()), len(pairs))


def _resampled_means(values: np.ndarray) -> np.ndarray:
    chosen = np.random.default_rng(SEED).integers(len(values), size=(RESAMPLES, len(values)))
    return values[chosen].mean(axis=1)


def _columns(records: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    return {name: [record[name] for record in records] for name in METRIC_NAMES if records and name in records[0]}
