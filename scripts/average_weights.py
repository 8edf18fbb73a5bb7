"""Averages the weights of networks that were trained from the same start (Wortsman et al., arXiv 2109.01903).

    python scripts/average_weights.py OUTPUT.safetensors runs/before:1 runs/after:3

Each source is a run, a weights file or a packaged name, and its share; shares are divided by their sum. A network
between the one before a fine-tuning and the one after it is often better than both, above all on images of another
kind.
"""

import argparse
import sys
from pathlib import Path

import torch

import kpac
from kpac.errors import UserError


def average(output: Path, sources: list[tuple[str, float]]) -> None:
    """Writes the weighted mean of the weights.

    Args:
        output: a .safetensors file.
        sources: what `kpac.load_model` takes, and its share, above 0.

    Raises:
        UserError: a source is missing, or of another network than the first.
    """
    total = sum(share for _, share in sources)
    models = [kpac.load_model(source) for source, _ in sources]
    mean = {key: torch.zeros_like(value) for key, value in models[0].state_dict().items()}
    for model, (source, share) in zip(models, sources, strict=True):
        if model.config != models[0].config:
            raise UserError(f"{source}: expected the same network and options as in {sources[0][0]}")
        for key, value in model.state_dict().items():
            mean[key] += value * (share / total)
    models[0].load_state_dict(mean)
    kpac.save_model(models[0], output, averaged={source: share / total for source, share in sources})


def _source(text: str) -> tuple[str, float]:
    source, _, share = text.rpartition(":")
    try:
        found = float(share)
    except ValueError:
        found = 0.0
    if not source or not 0 < found < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: expected a model and its share above 0, such as runs/after:3")
    return source, found


def main(arguments: list[str] | None = None) -> None:
    """Parses the arguments, and averages; see the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="a .safetensors file")
    parser.add_argument("sources", type=_source, nargs="+", metavar="MODEL:SHARE")
    options = parser.parse_args(arguments)
    average(options.output, options.sources)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
