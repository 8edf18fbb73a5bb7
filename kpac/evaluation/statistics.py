"""From scores of images to means: of all, of groups, how far a mean may be off, and whether two methods differ."""

from collections.abc import Sequence
from dataclasses import dataclass
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
        means = _resampled_means(np.asarray(values))
        low, high = np.quantile(means, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
        intervals[name] = [float(low), float(high)]
    return {"level": LEVEL, "resamples": RESAMPLES, "seed": SEED, "interval": intervals}


@dataclass(frozen=True)
class PairedDifference:
    """One method compared with another on the same images, by one metric.

    Args:
        mean: of the differences, the method minus the other.
        low, high: ends of the interval of the mean, of the level `LEVEL`.
        p: two-sided, for no difference.
        improved: images on which the method is better.
        images: number of them.
    """

    mean: float
    low: float
    high: float
    p: float
    improved: int
    images: int


def paired_difference(
    records: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]], metric: str, higher_is_better: bool
) -> PairedDifference | None:
    """Compares two methods image by image: percentile bootstrap of the mean difference, with a fixed seed.

    Both methods keep their image pairs together in every resample, so what makes an image easy for both does not widen
    the interval (Efron and Tibshirani, 1993, chapters 13 and 16).

    Args:
        records, others: of results.json, with the same names in any order.
        metric: its name.
        higher_is_better: how to count improved images.

    Returns:
        None for fewer than two images, a metric that one of them lacks, or differences that are not finite.
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
    p = min(1.0, 2 * (tail + 1) / (RESAMPLES + 1))  # counts the observed sample as one, so that it is never zero
    better = differences > 0 if higher_is_better else differences < 0
    return PairedDifference(float(differences.mean()), float(low), float(high), p, int(better.sum()), len(pairs))


def _resampled_means(values: np.ndarray) -> np.ndarray:
    chosen = np.random.default_rng(SEED).integers(len(values), size=(RESAMPLES, len(values)))
    return values[chosen].mean(axis=1)


def _columns(records: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    return {name: [record[name] for record in records] for name in METRICS if records and name in records[0]}
