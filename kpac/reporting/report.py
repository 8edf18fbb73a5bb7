"""Writes the report of one evaluation: report.md and comparison.png."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kpac.evaluation.evaluator import Evaluated
from kpac.evaluation.protocols import Protocol
from kpac.files import short_path, write_text
from kpac.reporting import figures
from kpac.reporting.tables import image_table, summary_table
from kpac.reporting.units import METRICS, cell

MEND = "evaluate again once the file is there"  # of a learned metric's weights


def write_report(folder: Path, results: dict[str, Any], protocol: Protocol, shown: Sequence[Evaluated]) -> None:
    """Writes report.md and comparison.png.

    Args:
        folder: folder of the evaluation.
        results: content of results.json.
        protocol: protocol of the evaluation.
        shown: scenes to draw.
    """
    data = f"{short_path(results['data'])} {results['split']} split"
    caption = f"{results['label']}, {data}, protocol {protocol.name}"
    figures.comparison(shown, folder / "comparison.png", caption)
    write_text(folder / "report.md", report(results, protocol.summary(results["mean"])))


def report(results: dict[str, Any], protocol_summary: str) -> str:
    """Text of report.md: scores, data, protocol, cost and versions."""
    environment = results["environment"]
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items() if version)
    git = environment["git"]
    revision = (
        f"{git['revision'][:12]}{' with uncommitted changes' if git['dirty'] else ''}" if git else "not a checkout"
    )
    facts = [
        f"Protocol {protocol_summary}.",
        f"Model: {model_text(results['model'])}.",
        f"Cost: {_cost(results)}.",
        *([f"Confidence: {_confidence(results)}."] if results["confidence"]["interval"] else []),
        *(_learned(name, facts) for name, facts in results["metrics"].items()),
        *(f"Not computed: {name.upper()}, {reason}; {MEND}." for name, reason in results["skipped"].items()),
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


def model_text(model: dict[str, Any]) -> str:
    """What the results say of the model, in Markdown."""
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
    return f"{counted}; {seconds:.3f} s per image (median), {memory:.2f} GB at the peak, on {results['device']}"


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


def _learned(name: str, facts: dict[str, str]) -> str:
    return f"{METRICS[name].title}: {facts['package']}, SHA-256 of its weights `{facts['sha256'][:16]}`."
