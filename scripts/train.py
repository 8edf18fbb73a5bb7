"""Runs `kpac train` from a file, as torchrun needs it.

torchrun --nproc-per-node 8 scripts/train.py CONFIG [key=value ...]
"""

import sys

from kpac.cli import main

sys.exit(main(["train", *sys.argv[1:]]))
