"""Markdown tables of one evaluation, of a network's cost, and of protocols."""

from collections.abc import Iterable
from typing import Any

import yaml

from kpac.evaluation.protocols import Protocol
from kpac.models.cost import Cost
from kpac.reporting.units import METRICS, cell
from kpac.text import markdown_table


def summary_table(results: dict[str, Any]) -> str:
    """Table of means of the blurred input and of the restored output, and the gain; then the same for each group."""
    names = list(results["mean"])
    if not names:
        return f"{len(results['images'])} images without targets: restored, not scored"
    rows = _rows("", results)
    for group, means in results["groups"].items():
        rows += _rows(f"{group} ({means['images']}): ", means)
    return markdown_table([f"mean of {len(results['images'])} images", *(METRICS[name].title for name in names)], rows)


def _rows(prefix: str, means: dict[str, Any]) -> list[list[str]]:
    before, after = means["input_mean"], means["mean"]
    return [
        [prefix + "blurred input", *(cell(name, before[name]) for name in after)],
        [prefix + "restored", *(cell(name, value) for name, value in after.items())],
        [prefix + "gain", *(cell(name, value - before[name], sign="+") for name, value in after.items())],
    ]


def image_table(results: dict[str, Any]) -> str:
    """Table with one row per image: input -> output for every metric."""
    names = list(results["mean"])
    rows = [
        [record["name"], *(f"{cell(name, record['input'][name])} → {cell(name, record[name])}" for name in names)]
        for record in results["images"]
    ]
    return markdown_table(["image", *(METRICS[name].title for name in names)], rows)


def cost_table(cost: Cost) -> str:
    """Table of parameters and multiply-accumulates of each part, and their sums."""
    rows = [[part.name, f"{part.parameters:,}", *_macs_cells(part.macs, cost)] for part in cost.parts]
    total = ["total", f"{cost.parameters:,}", *_macs_cells(cost.macs, cost)]
    return markdown_table([f"at {cost.height}x{cost.width}", "parameters", "GMACs", "share"], [*rows, total])


def _macs_cells(macs: int, cost: Cost) -> list[str]:
    return [f"{macs / 1e9:,.3f}", f"{100 * macs / cost.macs:.1f} %" if cost.macs else "-"]


def protocol_table(protocols: Iterable[Protocol]) -> str:
    """Table with one row per protocol: image processing and SSIM settings; below, who evaluates this way."""
    protocols = list(protocols)
    rows = []
    for protocol in protocols:
        size = "half" if protocol.downsize == 2 else f"1/{protocol.downsize}" if protocol.downsize > 1 else "full"
        crop = f", multiple of {protocol.crop_multiple}" if protocol.crop_multiple > 1 else ""
        border = f", {protocol.crop_border} px border" if protocol.crop_border else ""
        rounding = f"{protocol.rounding} bits" if protocol.rounding else "not rounded"
        rows.append(
            [
                protocol.name,
                f"{protocol.bit_depth} bits",
                f"{size}{crop}{border}",
                f"{'clamped' if protocol.clamp else 'not clamped'}, {rounding}",
                "Y" if protocol.channel == "y" else "RGB",
                protocol.ssim_summary().removeprefix("SSIM with a window ").replace(" and ", ", "),
            ]
        )
    table = markdown_table(["protocol", "read as", "size", "output", "channels", "SSIM's window"], rows)
    lines = []
    for protocol in protocols:
        also = f" (aliases: {', '.join(protocol.aliases)})" if protocol.aliases else ""
        lines.append(f"- `{protocol.name}`{also}: {protocol.source}")
    return "\n".join([table, "", *lines])


def protocol_yaml(protocol: Protocol) -> str:
    """YAML of a protocol with all its keys, in the form of a user's file."""
    values = protocol.model_dump(mode="json", exclude={"name", "aliases"})
    return yaml.safe_dump({protocol.name: values}, sort_keys=False, width=120, allow_unicode=True).rstrip()
