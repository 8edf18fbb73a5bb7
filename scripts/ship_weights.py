"""Adds a run's best weights to the package, in half precision, with their hash and a line in the manifest.

    python scripts/ship_weights.py runs/NAME kpac_2level-synthetic "the paper's 2-level network, ..."

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
    run, name, summary = sys.argv[1:]
    source = weights_file(Path(run))
    facts = {key: value for key, value in read_weights_header(source).items() if key not in ("format", "model")}
    target = Weights(name, summary, sha256="").path
    kpac.save_model(kpac.load_model(source), target, torch.float16, **facts)
    entries = yaml.safe_load(MANIFEST.read_text(encoding="utf-8")) or {}
    entries[name] = {"summary": summary, "sha256": hashlib.sha256(target.read_bytes()).hexdigest()}
    MANIFEST.write_text(yaml.safe_dump(entries, sort_keys=False, width=120), encoding="utf-8")
    print(f"{target}: {target.stat().st_size:,} bytes, from {source} (iteration {facts.get('iteration')})")
