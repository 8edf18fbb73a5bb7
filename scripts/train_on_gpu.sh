#!/usr/bin/env bash
# Renders the synthetic set on this machine, trains the paper's 2-level network on it for so many minutes, and leaves
# what is to be kept in one folder of less than 16 MiB.
#
#     scripts/train_on_gpu.sh PHOTOS MINUTES [key=value ...]
#
# PHOTOS is a folder of sharp photographs, or "skimage". The minutes are those of the training; rendering and evaluating
# come on top. How many iterations they are is found by a short training before, so that the learning rate comes to its
# end. DEVICE (cuda), PYTHON (python3), RECIPE (real), CONFIG and OUT (results) change what their names say.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/gpu_packages.sh
add_packages

if (($# < 2)); then
    echo "usage: scripts/train_on_gpu.sh PHOTOS MINUTES [key=value ...]" >&2
    exit 2
fi
photos=$1 minutes=$2
shift 2
config=${CONFIG:-configs/synthetic/kpac_2level.yaml}
kept=${OUT:-results}/train-on-gpu
data=data/synthetic
common=("device=${DEVICE:-cuda}" "data.root=$data" "$@")
kpac() { "$python" -m kpac "$@"; }

mkdir -p "$kept"
kpac data synthesize --photos "$photos" --recipe "${RECIPE:-real}" --output "$data" --workers "$(nproc)" --overwrite

# The second half of a short training, without what only its start takes, says how many iterations fit.
probe=${PROBE:-400}
kpac train "$config" name=train-on-gpu-probe "${common[@]}" "train.iterations=$probe" \
    "train.log_every=$((probe / 2))" "validation.every=$probe" validation.samples=0 --overwrite
iterations=$("$python" - "$minutes" <<'PY'
import json, pathlib, sys
from kpac.config import load_config

run = pathlib.Path("runs/train-on-gpu-probe")
lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
speed = [line["images_per_second"] for line in lines if line["kind"] == "train"][-1]
steps = float(sys.argv[1]) * 60 * speed / load_config(run / "config.yaml").train.batch_size
print(max(2, int(0.9 * steps)))  # a tenth is for validations
PY
)
echo "training $iterations iterations in about $minutes minutes"
kpac train "$config" name=train-on-gpu "${common[@]}" "train.iterations=$iterations" \
    "validation.every=$((iterations / 10 + 1))" --overwrite
kpac evaluate runs/train-on-gpu --data "$data" --split test --device "${DEVICE:-cuda}" --output "$kept" --overwrite

cp runs/train-on-gpu/{config.yaml,run.json,metrics.jsonl} runs/train-on-gpu/checkpoints/best.safetensors "$kept"
find "$kept" -mindepth 1 -maxdepth 1 -type d -exec rm -rf {} + # the records of single images
size=$(du -sk "$kept" | cut -f1)
if ((size > 16 * 1024)); then
    rm -f "$kept"/*.png
    size=$(du -sk "$kept" | cut -f1)
fi
echo "kept: $kept, $size KiB"
((size <= 16 * 1024))
