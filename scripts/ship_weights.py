"""Adds the best weights of a run to the package, in half precision, with their hash and a line in the manifest.

    python scripts/ship_weights.py kpac_2level-synthetic "the paper's 2-level network, ..." runs/NAME [runs/NAME ...]

Of several runs, each of which started from another's weights, the package gets the mean of the weights (model soups,
Wortsman et al., arXiv 2203.05482). The header is the first run's.

Write the card kpac/weights/NAME.md by hand: data, recipe, commands, results, limits.
"""

import hashlib
import sys
from pathlib import Path

import torch
import yaml

import kpac
from kpac.models.weights import read_weights_header, weights_file
from kpac.weights.store import MANIFEST, Weights

if __name__ == "__main__":
    name, summary, *runs = sys.argv[1:]
    sources = [weights_file(Path(run)) for run in runs]
    model = kpac.load_model(sources[0])
    states = [kpac.load_model(source).state_dict() for source in sources]
    model.load_state_dict({key: torch.stack([state[key] for state in states]).mean(0) for key in states[0]})
    facts = {key: value for key, value in read_weights_header(sources[0]).items() if key not in ("format", "model")}
    target = Weights(name, summary, sha256="").path
    kpac.save_model(model, target, torch.float16, **facts)
    entries = yaml.safe_load(MANIFEST.read_text(encoding="utf-8")) or {}
    entries[name] = {"summary": summary, "sha256": hashlib.sha256(target.read_bytes()).hexdigest()}
    MANIFEST.write_text(yaml.safe_dump(entries, sort_keys=False, width=120), encoding="utf-8")
    print(f"{target}: {target.stat().st_size:,} bytes, from {', '.join(map(str, sources))}")
