"""Arguments and checks that several commands share."""

import argparse
from collections.abc import Callable


def add_command(commands, name: str, function: Callable, summary: str) -> argparse.ArgumentParser:
    """A subcommand that calls `function` with its options."""
    command = commands.add_parser(name, help=summary, description=sentence(summary))
    command.set_defaults(run=function)
    return command


def sentence(text: str) -> str:
    """A summary with a capital and a full stop."""
    return f"{text[0].upper()}{text[1:]}."


def plugin_argument(command: argparse.ArgumentParser) -> None:
    """--plugin FILE, any number of times."""
    command.add_argument(
        "--plugin", action="append", default=[], metavar="FILE", help="Python code that registers a network of your own"
    )


def positive(text: str) -> int:
    """A whole number of 1 or more."""
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a whole number of 1 or more, found '{text}'")
    return int(text)
