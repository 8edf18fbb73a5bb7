"""`python -m kpac` is the `kpac` command."""

import sys

from kpac.cli import main

sys.exit(main())
