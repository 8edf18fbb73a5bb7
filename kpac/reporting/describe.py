"""A paragraph for a paper: how the scores of a table were computed."""

from typing import Any

from kpac.evaluation.protocols import Protocol
from kpac.evaluation.results import protocol_of
from kpac.reporting.comparison import ResultFiles, data_title
from kpac.reporting.units import METRICS


def describe(found: ResultFiles) -> str:
    """Writes sentences on data, protocol, metrics, methods, versions, precision and device.

    Args:
        found: from `kpac.evaluation.results.find_results`.
    """
    results = [item for _, item in found]
    sentences = [
        *_unique(_data(item) for item in results),
        *_unique(_protocol(protocol_of(item), item["mean"]) for item in results),
        *_unique(_learned(item) for item in results),
        _methods(results),
        *_unique(_costs(item) for item in results),
        *_unique(_environment(item) for item in results),
    ]
    return " ".join(sentences) + "\n"


def _unique(sentences: Any) -> list[str]:
    return [sentence for sentence in dict.fromkeys(sentences) if sentence]


def _data(results: dict[str, Any]) -> str:
    count, title = len(results["images"]), data_title(results)
    groups = ", ".join(f"{means['images']} {name}" for name, means in results["groups"].items())
    return f"We evaluate on {count} image{'s' * (count != 1)} of {title}{f' ({groups})' if groups else ''}."


def _protocol(protocol: Protocol, metrics: dict[str, float]) -> str:
    size = f"made {protocol.downsize} times smaller by area averaging" if protocol.downsize > 1 else "used at full size"
    crop = f" and cropped to multiples of {protocol.crop_multiple} pixels" if protocol.crop_multiple > 1 else ""
    output = "clamped to [0, 1]" if protocol.clamp else "not clamped"
    output += f" and rounded to {protocol.rounding} bits" if protocol.rounding else " and not rounded"
    text = (
        f"Under the protocol {protocol.name}, images are read with {protocol.bit_depth} bits per channel and "
        f"{size}{crop}; outputs are {output}."
    )
    if not metrics:
        return text
    border = f", {protocol.crop_border} pixels at every edge left out" if protocol.crop_border else ""
    channel = "the Y channel of YCbCr" if protocol.channel == "y" else "RGB"
    return (
        f"{text} PSNR and MAE are computed over all pixels of {channel}{border}, with a peak value of "
        f"{protocol.data_range:g}; {protocol.ssim_summary()}; means are over images."
    )


def _learned(results: dict[str, Any]) -> str:
    parts = []
    for name, facts in (results.get("metrics") or {}).items():
        backbone = f" with the backbone {facts['backbone']}" if "backbone" in facts else ""
        title = METRICS[name].title if name in METRICS else name
        parts.append(
            f"{title} is computed by {facts['package']}{backbone} (SHA-256 of its weights {facts['sha256'][:12]})"
        )
    return f"{'; '.join(parts)}." if parts else ""


def _methods(results: list[dict[str, Any]]) -> str:
    texts = []
    for item in results:
        model = item["model"]
        if "images" in model:
            texts.append(f"{item['label']} (saved images)")
        else:
            texts.append(f"{item['label']} ({model['name']}, SHA-256 of its weights {model['sha256'][:12]})")
    texts = list(dict.fromkeys(texts))
    return f"The method{'s are' if len(texts) > 1 else ' is'} {'; '.join(texts)}."


def _costs(results: dict[str, Any]) -> str:
    cost, seconds = results["cost"], results["seconds"]
    if not cost or seconds is None:
        return ""
    size = f"{cost['width']}x{cost['height']}"
    return (
        f"Multiply-accumulates are for an image of {size} pixels; times are medians over images on {results['device']}."
    )


def _environment(results: dict[str, Any]) -> str:
    environment = results.get("environment") or {}
    packages = [f"{name} {version}" for name, version in environment.get("packages", {}).items() if version]
    versions = ", ".join([f"Python {environment['python']}", *packages]) if environment else "unrecorded versions"
    git = environment.get("git")
    code = f", code revision {git['revision'][:12]}{' with changes' if git['dirty'] else ''}" if git else ""
    precision = f" ({results['precision']})" if results.get("precision") else ""
    return f"Numbers were computed on {results['device']}{precision} with {versions}{code}."
