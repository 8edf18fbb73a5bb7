"""The library states facts; flags of the command line are named in `kpac/commands` alone."""

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import kpac
from kpac.cli import main, make_parser
from kpac.commands.remedies import REMEDIES, advice, explain
from kpac.errors import Stopped, UserError

ROOT = Path(kpac.__file__).parent
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
OTHERS = {  # name flags, and why they may
    "experiments/jobs.py": "builds command lines",
    "experiments/scoring.py": "builds command lines",
    "experiments/sweep.py": "builds command lines",
    "environment.py": "calls git",
    "data/loading.py": "names Docker's flag",
    "distributed.py": "names torchrun's flag",
}
POSITION = {"UserError": 1, "OutOfMemory": 1, "LoadingError": 1, "Stopped": 2, "stopped": 2}  # of a remedy in a call


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(ROOT.rglob("*.py")):
        yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def literals(tree: ast.AST) -> Iterator[str]:
    """The texts in a module, but for docstrings."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, documented)]
    docstrings = {id(statement.value) for body in bodies for statement in body if isinstance(statement, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def flags_of(parser: argparse.ArgumentParser) -> set[str]:
    flags = set(parser._option_string_actions)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            flags |= {flag for command in action.choices.values() for flag in flags_of(command)}
    return flags


def remedies(tree: ast.AST) -> Iterator[tuple[str, list[str]]]:
    """Every remedy that an error in a module names, with the names of the values that the error has."""
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in POSITION:
            values = [keyword.arg or "" for keyword in call.keywords]
            for argument in call.args[POSITION[call.func.id] :][:1]:
                yield from ((text, values) for text in literals(argument))


NAMED = [found for _, tree in modules() for found in remedies(tree)]


def is_of_the_command_line(file: str) -> bool:
    return file.startswith("commands/") or file == "cli.py"


def test_library_names_no_flags():
    found = {
        file: flags
        for file, tree in modules()
        if not is_of_the_command_line(file)
        and (flags := {flag for text in literals(tree) for flag in FLAG.findall(text)})
    }
    assert found.keys() == OTHERS.keys(), {file: found[file] for file in found.keys() - OTHERS.keys()}


def test_flags_in_messages_exist():
    known = flags_of(make_parser())
    assert {"--overwrite", "--left"} <= known
    named = {
        flag
        for file, tree in modules()
        if is_of_the_command_line(file)
        for text in literals(tree)
        for flag in FLAG.findall(text)
    }
    assert named - known == set()


def test_remedies_are_those_that_errors_name():
    assert {remedy for remedy, _ in NAMED} == REMEDIES.keys()


@pytest.mark.parametrize(("remedy", "values"), NAMED)
def test_remedies_get_the_values_that_they_show(remedy, values):
    assert advice(remedy, **dict.fromkeys(values, "value")) != ""


def test_error_is_explained_with_flags(capsys, monkeypatch):
    error = UserError("x.png: exists already", "overwrite")
    assert str(error) == "x.png: exists already"
    assert explain(error) == "x.png: exists already; --overwrite replaces it"
    assert explain(UserError("a fact")) == "a fact"
    assert explain(UserError("no views", "missing_views", views=["left", "right"])).endswith("with --left and --right")
    stopped = Stopped("interrupted", 130, "resume", folder=Path("runs/my run"))
    assert explain(stopped) == "interrupted; continue with: kpac train --resume 'runs/my run'"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    assert explain(stopped).endswith("continue with: torchrun ... scripts/train.py --resume 'runs/my run'")


def test_error_keeps_its_remedy_inside_a_place():
    error = UserError("out of memory", "tile", tile=512).within("x.png")
    assert explain(error) == "x.png: out of memory; try --tile 512"


def test_command_explains_errors_that_it_ends_with_and_that_it_logs(capsys, monkeypatch, tmp_path):
    import logging

    def fail(_: object) -> int:
        logging.getLogger("kpac.anything").warning("%s", UserError("logged", "tile", tile=64))
        raise UserError("raised", "save_images")

    monkeypatch.setattr("kpac.commands.env.env", fail)
    assert main(["env"]) == 2
    assert capsys.readouterr().err == "kpac: logged; try --tile 64\nkpac: raised; evaluate again with --save-images\n"
