"""Imports run one way: between the packages of kpac, and between the modules of each; those inside functions, too."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import kpac

ROOT = Path(kpac.__file__).parent
EXCEPTIONS = {
    (
        "kpac.models.weights",
        "kpac.zoo.checkpoints",
    ): "load_model reads files of other projects, too; the zoo is an extra",
    ("kpac.images.photograph", "kpac.images.writing"): "a photograph has `save`, and each format makes photographs",
}


def name_of(path: Path) -> str:
    parts = ("kpac", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in ROOT.rglob("*.py")}
PACKAGES = {name for name, path in MODULES.items() if path.name == "__init__.py"}


def imported(tree: ast.AST) -> Iterator[str]:
    """The modules that a module imports when it runs, at its top or inside of functions."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module for name in inside)
        yield from imported(node)


def imports() -> set[tuple[str, str]]:
    return {
        (name, other)
        for name, path in MODULES.items()
        for other in imported(ast.parse(path.read_text(encoding="utf-8")))
        if other in MODULES and other != name
    }


def package_of(module: str) -> str:
    return module if module in PACKAGES else module.rpartition(".")[0] if module.count(".") > 1 else module


def check(edges: set[tuple[str, str]]) -> None:
    graph = defaultdict(set)
    for one, other in edges:
        graph[one].add(other)
    TopologicalSorter(graph).prepare()  # raises CycleError, which names a circle


def test_modules_import_each_other_in_no_circle():
    check(imports() - EXCEPTIONS.keys())


def test_packages_import_each_other_in_no_circle():
    between = {(package_of(one), package_of(other)) for one, other in imports() - EXCEPTIONS.keys()}
    check({(one, other) for one, other in between if one != other})


def test_exceptions_are_needed():
    assert EXCEPTIONS.keys() <= imports()
