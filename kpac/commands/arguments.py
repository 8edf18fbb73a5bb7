"""What several subcommands share: arguments, their types, and lines of prose."""

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

Subcommands = Any  # what argparse's add_subparsers gives; its class is private


class Parser(argparse.ArgumentParser):
    """Reports a mistake in one line, as everything else here does."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        sys.exit(2)


def add_group(commands: Subcommands, name: str, summary: str) -> Subcommands:
    """A command with subcommands of its own; gives the place to add them to."""
    group = commands.add_parser(name, help=summary, description=_sentence(summary))
    return group.add_subparsers(title="commands", metavar="COMMAND", required=True)


def add_command(
    commands: Subcommands, name: str, run: Callable[[argparse.Namespace], int | None], summary: str
) -> argparse.ArgumentParser:
    """A subcommand; `run` does its work, and may give an exit status."""
    command = commands.add_parser(name, help=summary, description=_sentence(summary))
    command.set_defaults(run=run)
    return command


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def add_config_arguments(command: argparse.ArgumentParser) -> None:
    """A YAML file, and overrides of its keys."""
    command.add_argument("config", type=Path, metavar="CONFIG", help="a YAML file")
    command.add_argument("overrides", nargs="*", metavar="key=value", help="such as train.iterations=500")


def add_layout_arguments(command: argparse.ArgumentParser) -> None:
    """How a data set lies on disk, and how its images pair."""
    command.add_argument("--layout", default="auto", metavar="NAME", help="a name from data/README.md (default: auto)")
    command.add_argument(
        "--pair-by-order",
        action="store_true",
        help="pair images by the sorted order of their names, whatever they say",
    )


def add_plugin_argument(command: argparse.ArgumentParser) -> None:
    """Networks of the user's own."""
    command.add_argument(
        "--plugin", action="append", default=[], metavar="FILE", help="Python code that registers a network of your own"
    )


def chosen_model(model: Path | None, views: Sequence[str] = ("center",)) -> Path:
    """The model that was named, or else the weights that come with the package, which is said in one line."""
    from kpac.weights.store import default_weights

    if model is None:
        model = Path(default_weights(views))
        say(f"no model was named: taking {model}, which comes with the package")
    return model


def size(text: str) -> tuple[int, int]:
    """The type of an argument such as 1120x1680: height and width."""
    height, cross, width = text.partition("x")
    if not (cross and height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH in pixels, such as 1120x1680, found '{text}'")
    return int(height), int(width)


def positive(text: str) -> int:
    """The type of a count."""
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a whole number of 1 or more, found '{text}'")
    return int(text)


def fraction(text: str) -> float:
    """The type of a number between 0 and 1."""
    if not re.fullmatch(r"0?\.\d+", text):
        raise argparse.ArgumentTypeError(f"expected a fraction between 0 and 1, found '{text}'")
    return float(text)


def say(text: str) -> None:
    """Prints a line of prose, apart from the results on stdout."""
    print(text, file=sys.stderr)
