"""Reports of `kpac data check`, as text and as JSON."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from kpac.data.check import SplitReport
from kpac.data.roles import ROLES
from kpac.images import left_out_text
from kpac.text import markdown_table

SHOWN_FAULTS = 20  # faults of each kind in the text; the JSON lists all
SHOWN_SIZES = 2


def check_text(reports: Iterable[SplitReport], note: str = "") -> str:
    """The report as text: a table of the splits, notes, a table of the faults, and a verdict on each split.

    Args:
        reports: from `kpac.data.check.check`.
        note: how to see the faults that a long list leaves out.
    """
    reports = list(reports)
    header = ["split", "layout", "scenes", *(role for role in ROLES if role != "center"), "sizes", "bits", "faults"]
    parts = [markdown_table(header, [_row(report) for report in reports])]
    notes = [note for report in reports for note in _notes(report)]
    if notes:
        parts.append("\n".join(notes))
    faults = [fault for report in reports for fault in report.faults]
    if faults:
        parts.append("\n".join(_fault_lines(faults, note)))
    parts.append("\n".join(report.verdict() for report in reports))
    return "\n\n".join(parts)


def check_json(reports: Iterable[SplitReport]) -> dict[str, Any]:
    """The report as JSON values, with every fault."""
    splits = [
        {
            "split": report.split,
            "layout": report.layout,
            "images": {role: len(images) for role, images in report.images.items()},
            "sizes": report.sizes,
            "bit_depths": report.bit_depths,
            "gray": _count(report, "gray"),
            "alpha": _count(report, "alpha"),
            "shared_targets": report.shared_targets,
            "pairing": {role: pairs.rule or "by equal or published names" for role, pairs in report.pairs.items()},
            "left_out": {str(folder): counts for folder, counts in report.left_out.items()},
            "published": report.published,
            "faults": [{"kind": fault.kind, "text": fault.text} for fault in report.faults],
            "verdict": report.verdict(),
        }
        for report in reports
    ]
    return {"ok": not any(split["faults"] for split in splits), "splits": splits}


def _row(report: SplitReport) -> list[str]:
    counts = {role: str(len(images)) for role, images in report.images.items()}
    sizes = [f"{size}: {count}" for size, count in list(report.sizes.items())[:SHOWN_SIZES]]
    if len(report.sizes) > SHOWN_SIZES:
        sizes.append(f"{len(report.sizes) - SHOWN_SIZES} more")
    bits = [f"{bits}: {count}" for bits, count in report.bit_depths.items()]
    return [
        report.split,
        report.layout,
        *(counts.get(role, "-") for role in ROLES),
        ", ".join(sizes) or "-",
        ", ".join(bits) or "-",
        str(len(report.faults)),
    ]


def _notes(report: SplitReport) -> list[str]:
    notes = [
        f"{report.split}: inputs and {role} images: {pairs.rule}" for role, pairs in report.pairs.items() if pairs.rule
    ]
    notes += [f"{folder}: {left_out_text(counts)}" for folder, counts in report.left_out.items()]
    if gray := _count(report, "gray"):
        notes.append(f"{report.split}: {gray} gray images, read as three equal channels")
    if alpha := _count(report, "alpha"):
        notes.append(f"{report.split}: {alpha} images with an alpha channel, which is dropped")
    if report.shared_targets:
        notes.append(f"{report.split}: {report.shared_targets} targets equal the target of another input")
    return notes


def _count(report: SplitReport, fact: str) -> int:
    return sum(getattr(facts.header, fact) for facts in report.facts.values() if facts.header)


def _fault_lines(faults: list, note: str) -> Iterable[str]:
    shown: Counter[str] = Counter()
    for fault in faults:
        shown[fault.kind] += 1
        if shown[fault.kind] <= SHOWN_FAULTS:
            yield f"{fault.kind:>16}  {fault.text}"
    for kind, count in shown.items():
        if count > SHOWN_FAULTS:
            yield f"{kind:>16}  and {count - SHOWN_FAULTS} more{note and f'; {note}'}"
