"""Tables of a results page: means, and the worst and best scenes of each method."""

from dataclasses import dataclass
from typing import Any

from kpac.evaluation.statistics import mean_scores
from kpac.reporting.pages.gallery import DataSet, Gallery, Key
from kpac.reporting.units import METRICS, cell

EXTREMES = 3  # number of worst and of best scenes to list


@dataclass(frozen=True)
class SummaryTable:
    """Means over the scenes of one data set that every method was scored on."""

    title: str  # the data set; for a part of its scenes, also their group
    count: int  # number of scenes
    header: list[str]  # titles of the metrics, and of the gain
    rows: list[tuple[str, list[str]]]  # label and cells of the input and of every method


def summaries(gallery: Gallery) -> list[SummaryTable]:
    """One table for each data set, and one for each of its groups."""
    return [
        table
        for item in gallery.sets
        for group in (None, *gallery.protocol.groups)
        if (table := _summary(gallery, item, group))
    ]


def extremes(gallery: Gallery) -> list[dict[str, Any]]:
    """Finds, for each method, the scenes of lowest and highest PSNR gain; scenes are numbered from 1."""
    found = []
    for key in gallery.keys:
        gains = [
            (gain, number)
            for number, scene in enumerate(gallery.scenes, 1)
            if key in scene.data_set.methods and scene.name in scene.data_set.methods[key].records
            if (gain := gain_of(scene.data_set.methods[key].records[scene.name])) is not None
        ]
        order = [{"number": n, "name": gallery.scenes[n - 1].name, "gain": f"{g:+.2f}"} for g, n in sorted(gains)]
        if order:
            count = min(EXTREMES, -(-len(order) // 2))
            entry = {"label": gallery.labels[key], "worst": order[:count]}
            found.append({**entry, "best": order[: -count - 1 : -1] if len(order) > 1 else []})
    return found


def gain_of(record: dict[str, Any]) -> float | None:
    """PSNR of the output minus PSNR of the input; None without targets, or if both are infinite."""
    if "psnr" not in record:
        return None
    gain = record["psnr"] - record["input"]["psnr"]
    return gain if gain == gain else None


def _summary(gallery: Gallery, item: DataSet, group: str | None) -> SummaryTable | None:
    methods = {key: item.methods[key] for key in gallery.keys if key in item.methods}
    common = set.intersection(*(set(method.records) for method in methods.values()))
    chosen = {
        key: [method.records[name] for name in method.records if name in common and _is_in(method.records[name], group)]
        for key, method in methods.items()
    }
    first = next(iter(chosen.values()))
    means = {key: mean_scores(records) for key, records in chosen.items()}
    names = [name for name in METRICS if any(name in mean for mean in means.values())]
    if not first or not names:
        return None
    before: dict[str, float] = {}
    for records in chosen.values():
        before = mean_scores([record["input"] for record in records]) | before
    rows = [("input", [cell(name, before.get(name)) for name in names] + [""])]
    for key in methods:
        rows.append((gallery.labels[key], _cells(key, names, means, before)))
    title = f"{item.title}, {group}" if group else item.title
    return SummaryTable(title, len(first), [METRICS[name].title for name in names] + ["gain [dB]"], rows)


def _cells(key: Key, names: list[str], means: dict[Key, dict[str, float]], before: dict[str, float]) -> list[str]:
    mean = means[key]
    gain = mean["psnr"] - before["psnr"] if "psnr" in mean else None
    return [cell(name, mean.get(name)) for name in names] + [cell("psnr", gain, sign="+")]


def _is_in(record: dict[str, Any], group: str | None) -> bool:
    return group is None or record.get("group") == group
