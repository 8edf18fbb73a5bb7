"""Helpers that several subcommands share: arguments, their types, and messages."""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

Subcommands = Any  # returned by argparse's add_subparsers; its class is private


class Parser(argparse.ArgumentParser):
    """Argument parser that reports a mistake in one line, like all other errors of the command."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        sys.exit(2)


def add_group(commands: Subcommands, name: str, summary: str) -> Subcommands:
    """Adds a command that has subcommands; returns the object to add them to."""
    group = commands.add_parser(name, help=summary, description=_sentence(summary))
    return group.add_subparsers(title="commands", metavar="COMMAND", required=True)


def add_command(
    commands: Subcommands, name: str, run: Callable[[argparse.Namespace], int | None], summary: str
) -> argparse.ArgumentParser:
    """Adds a subcommand; `run` does its work, and may return an exit status."""
    command = commands.add_parser(name, help=summary, description=_sentence(summary))
    command.set_defaults(run=run)
    return command


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def add_config_arguments(command: argparse.ArgumentParser) -> None:
    """Adds arguments for a YAML file and for overrides of its keys."""
    command.add_argument("config", type=Path, metavar="CONFIG", help="a YAML file")
    command.add_argument("overrides", nargs="*", metavar="key=value", help="settings, such as train.iterations=500")


def add_layout_arguments(command: argparse.ArgumentParser) -> None:
    """Adds arguments for the layout of a data set and the pairing of its images."""
    command.add_argument(
        "--layout", default="auto", metavar="NAME", help="layout of the data set, see data/README.md (default: auto)"
    )
    command.add_argument(
        "--pair-by-order",
        action="store_true",
        help="pair images by the sorted order of their names, even if the names differ",
    )


def add_plugin_argument(command: argparse.ArgumentParser) -> None:
    """Adds the argument for files that register networks of the user."""
    command.add_argument(
        "--plugin", action="append", default=[], metavar="FILE", help="Python code that registers a network of your own"
    )


def chosen_model(model: Path | None, views: Sequence[str] = ("center",)) -> Path:
    """The given model; without one, the weights of the package for these views, with a message."""
    from kpac.weights.store import default_weights

    if model is None:
        model = Path(default_weights(views))
        say(f"no model was given: using {model}, which comes with the package")
    return model


def size(text: str) -> tuple[int, int]:
    """Argument type for an image size such as 1120x1680: height and width."""
    height, cross, width = text.partition("x")
    if not (cross and height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH in pixels, such as 1120x1680, found '{text}'")
    return int(height), int(width)


def positive(text: str) -> int:
    """Argument type for a positive integer."""
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a whole number of 1 or more, found '{text}'")
    return int(text)


def fraction(text: str) -> float:
    """Argument type for a number between 0 and 1."""
    if not re.fullmatch(r"0?\.\d+", text):
        raise argparse.ArgumentTypeError(f"expected a fraction between 0 and 1, found '{text}'")
    return float(text)


def say(text: str) -> None:
    """Prints a message to stderr, separate from the results on stdout."""
    print(text, file=sys.stderr)
