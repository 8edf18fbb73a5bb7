"""Results as tables that people read."""

from typing import Any

from kpac.evaluation.metrics import METRICS
from kpac.models.cost import Cost
from kpac.text import markdown_table

DIGITS = {"psnr": 2, "ssim": 4, "mae": 4}
TITLES = {"psnr": "PSNR [dB]", "ssim": "SSIM", "mae": "MAE"}


def summary_table(results: dict[str, Any]) -> str:
    """Means of the blurred input, of the restored output, and the gain."""
    before, after = results["input_mean"], results["mean"]
    gain = {name: after[name] - before[name] for name in METRICS}
    return markdown_table(
        [f"mean of {len(results['images'])} images", *TITLES.values()],
        [
            ["blurred input", *_cells(before)],
            ["restored", *_cells(after)],
            ["gain", *_cells(gain, sign="+")],
        ],
    )


def image_table(results: dict[str, Any]) -> str:
    """One row an image: input -> output of every metric."""
    rows = [
        [record["name"], *(f"{b} → {a}" for b, a in zip(_cells(record["input"]), _cells(record), strict=True))]
        for record in results["images"]
    ]
    return markdown_table(["image", *TITLES.values()], rows)


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


def report(results: dict[str, Any], protocol_summary: str, cost: Cost | None) -> str:
    """The whole of report.md: what was measured, on what, how, at what cost, with which versions."""
    model, environment = results["model"], results["environment"]
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items() if version)
    git = environment["git"]
    revision = (
        f"{git['revision'][:12]}{' with uncommitted changes' if git['dirty'] else ''}" if git else "not a checkout"
    )
    seconds = sorted(record["seconds"] for record in results["images"])
    options = ", ".join(f"{key} {value}" for key, value in model["options"].items())
    counted = (
        f"{cost.parameters:,} parameters; {cost.macs / 1e9:.2f} G multiply-accumulates for an image of "
        f"{cost.width}x{cost.height}"
        if cost
        else "parameters and multiply-accumulates could not be counted"
    )
    parts = [
        f"# {model['name']} on {results['data']}, {results['split']} split",
        summary_table(results),
        "![blurred, restored and sharp](comparison.png)",
        "## How these numbers were made",
        f"- Protocol {protocol_summary}.\n"
        f"- Model: {model['name']} ({options}), weights `{model['weights']}`, SHA-256 `{model['sha256'][:16]}`.\n"
        f"- Cost: {counted}; {seconds[len(seconds) // 2]:.3f} s an image (median) on {results['device']}.\n"
        f"- Versions: Python {environment['python']}, {packages}; code {revision}.",
        "## Every image",
        image_table(results),
    ]
    return "\n\n".join(parts) + "\n"


def _cells(scores: dict[str, float], sign: str = "") -> list[str]:
    return [f"{scores[name]:{sign}.{digits}f}" for name, digits in DIGITS.items()]
