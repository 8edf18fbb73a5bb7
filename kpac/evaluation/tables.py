"""One evaluation as tables that people read, and report.md."""

from typing import Any

from kpac.evaluation.quantities import METRICS, cell
from kpac.files import short_path
from kpac.models.cost import Cost
from kpac.text import markdown_table


def summary_table(results: dict[str, Any]) -> str:
    """Means of the blurred input, of the restored output, and the gain; those of groups below, where there are any."""
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
    """One row an image: input -> output of every metric."""
    names = list(results["mean"])
    rows = [
        [record["name"], *(f"{cell(name, record['input'][name])} → {cell(name, record[name])}" for name in names)]
        for record in results["images"]
    ]
    return markdown_table(["image", *(METRICS[name].title for name in names)], rows)


def cost_table(cost: Cost) -> str:
    """Parameters and multiply-accumulates by part, and their sum."""
    rows = [[part.name, f"{part.parameters:,}", *_macs_cells(part.macs, cost)] for part in cost.parts]
    total = ["total", f"{cost.parameters:,}", *_macs_cells(cost.macs, cost)]
    return markdown_table([f"at {cost.height}x{cost.width}", "parameters", "GMACs", "share"], [*rows, total])


def cost_json(cost: Cost) -> dict[str, Any]:
    """The same as JSON: sizes in pixels, counts exact."""
    return {
        "height": cost.height,
        "width": cost.width,
        "parameters": cost.parameters,
        "macs": cost.macs,
        "parts": [vars(part) for part in cost.parts],
    }


def _macs_cells(macs: int, cost: Cost) -> list[str]:
    return [f"{macs / 1e9:,.3f}", f"{100 * macs / cost.macs:.1f} %" if cost.macs else "-"]


def report(results: dict[str, Any], protocol_summary: str) -> str:
    """The whole of report.md: what was measured, on what, how, at what cost, with which versions."""
    environment = results["environment"]
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items() if version)
    git = environment["git"]
    revision = (
        f"{git['revision'][:12]}{' with uncommitted changes' if git['dirty'] else ''}" if git else "not a checkout"
    )
    facts = [
        f"Protocol {protocol_summary}.",
        f"Model: {_model(results['model'])}.",
        f"Cost: {_cost(results)}.",
        *([f"Confidence: {_confidence(results)}."] if results["confidence"]["interval"] else []),
        *(f"Not computed: {name.upper()}, {reason}." for name, reason in results["skipped"].items()),
        f"Versions: Python {environment['python']}, {packages}; code {revision}.",
    ]
    parts = [
        f"# {results['label']} on {short_path(results['data'])}, {results['split']} split",
        summary_table(results),
        f"![{'blurred, restored and sharp' if 'psnr' in results['mean'] else 'blurred and restored'}](comparison.png)",
        "## How these numbers were made",
        "\n".join(f"- {fact}" for fact in facts),
        *(["## Every image", image_table(results)] if results["mean"] else []),
    ]
    return "\n\n".join(parts) + "\n"


def _model(model: dict[str, Any]) -> str:
    if "images" in model:
        return f"images in `{short_path(model['images'])}`"
    options = ", ".join(f"{key} {value}" for key, value in model["options"].items())
    return f"{model['name']} ({options}), weights `{short_path(model['weights'])}`, SHA-256 `{model['sha256'][:16]}`"


def _cost(results: dict[str, Any]) -> str:
    cost, seconds, memory = results["cost"], results["seconds"], results["memory_gb"]
    if seconds is None:
        return "unknown for saved images"
    counted = (
        f"{cost['parameters']:,} parameters; {cost['macs'] / 1e9:.2f} G multiply-accumulates for an image of "
        f"{cost['width']}x{cost['height']}"
        if cost
        else "parameters and multiply-accumulates could not be counted"
    )
    return f"{counted}; {seconds:.3f} s an image (median), {memory:.2f} GB at the peak, on {results['device']}"


def _confidence(results: dict[str, Any]) -> str:
    found = results["confidence"]
    intervals = ", ".join(
        f"{METRICS[name].title} {cell(name, low)} to {cell(name, high)}"
        for name, (low, high) in found["interval"].items()
    )
    return (
        f"{found['level']:.0%} intervals of the means over images, {intervals} (percentile bootstrap, "
        f"{found['resamples']:,} resamples, seed {found['seed']})"
    )
