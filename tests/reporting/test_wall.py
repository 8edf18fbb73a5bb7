"""Scores do not depend on how they are shown."""

import ast
from pathlib import Path

import kpac.evaluation


def test_evaluation_imports_nothing_from_reporting():
    for path in Path(kpac.evaluation.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not any((name or "").startswith("kpac.reporting") for name in names), path
