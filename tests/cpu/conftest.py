"""These tests need Numba, which the package does not."""

from kpac.cpu import missing

collect_ignore_glob = ["test_*.py"] if missing() else []
