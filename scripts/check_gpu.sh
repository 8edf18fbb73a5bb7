#!/usr/bin/env bash
# Everything that only a GPU can show, in ten minutes: scripts/check_gpu.py, with the packages that a machine lacks.
#
#     scripts/check_gpu.sh --prepare      # where there is a network: fetches wheels for Python 3.12 into .gpu/wheels
#     scripts/check_gpu.sh [...]          # where there is a GPU and a Python with PyTorch; needs no network
#
# PYTHON names the interpreter, by default python3.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/gpu_packages.sh
if [[ ${1:-} == --prepare ]]; then
    prepare_packages
    exit
fi
add_packages
exec "$python" scripts/check_gpu.py "$@"
