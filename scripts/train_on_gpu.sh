#!/usr/bin/env bash
# Renders the synthetic set on this machine, trains the package's network on it for so many minutes, and leaves what is to
# be kept in one folder of less than 16 MiB.
#
#     scripts/train_on_gpu.sh PHOTOS MINUTES [key=value ...]
#
# PHOTOS is a folder of sharp photographs, or "skimage". The minutes are those of the training; rendering and evaluating
# come on top. How many iterations they are is found by a short training before, so that the learning rate comes to its
# end. With 0 minutes it only renders. A set that is there, in data/synthetic/VIEWS, is used as it is: remove it to render
# another.
#
# Environment: DEPTH, a folder of depth maps for some photographs; SCENES, of the recipe, for each photograph (6);
# VIEWS, center or dual, and CONFIG for it; DEVICE (cuda), PYTHON (python3) and OUT (results).
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
views=${VIEWS:-center}
name=kpac_2level
[[ $views == dual ]] && name=kpac_dual
config=${CONFIG:-configs/synthetic/${name}_gpu.yaml}
kept=${OUT:-results}/train-on-gpu-$views
data=data/synthetic/$views
common=("device=${DEVICE:-cuda}" "data.root=$data/all" "$@")
kpac() { "$python" -m kpac "$@"; }

render() { # NAME ARGUMENTS: renders a set, unless it is there
    local set=$data/$1
    shift
    [[ -f $set/synthesis.json ]] ||
        kpac data synthesize --photos "$photos" --views "$views" --output "$set" --workers "$(nproc)" --overwrite "$@"
}

photographs=13 # scikit-image's
[[ -d $photos ]] && photographs=$(find -L "$photos" -type f ! -name '.*' | wc -l)
render real --recipe real ${DEPTH:+--depth "$DEPTH"} --scenes $((${SCENES:-6} * photographs))
render waves --f-number 1.4 --contrast 0.5:1 --scenes "$photographs"
render sharp --f-number 32 --scenes "$photographs" --size 640
rm -rf "$data/all"
"$python" scripts/mix_data.py "$data/all" "$data/real:0" "$data/waves:0" "$data/sharp:0"
[[ $minutes == 0 ]] && exit

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
run=runs/train-on-gpu-$views
kpac train "$config" "name=${run#runs/}" "${common[@]}" "train.iterations=$iterations" \
    "validation.every=$((iterations / 5 + 1))" --overwrite
mkdir -p "$kept"
kpac evaluate "$run" --data "$data/all" --split test --device "${DEVICE:-cuda}" --output "$kept" --overwrite

cp "$run"/{config.yaml,run.json,metrics.jsonl} "$run/checkpoints/best.safetensors" "$kept"
find "$kept" -mindepth 1 -maxdepth 1 -type d -exec rm -rf {} + # the records of single images
size=$(du -sk "$kept" | cut -f1)
if ((size > 16 * 1024)); then
    rm -f "$kept"/*.png
    size=$(du -sk "$kept" | cut -f1)
fi
echo "kept: $kept, $size KiB"
((size <= 16 * 1024))
