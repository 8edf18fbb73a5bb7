"""Runs `kpac evaluate` from a file, as torchrun needs it.

torchrun --nproc-per-node 8 scripts/evaluate.py MODEL --data DIR ..., or scripts/evaluate.py COMPARISON.yaml
"""

import sys

from kpac.cli import main

sys.exit(main(["evaluate", *sys.argv[1:]]))
