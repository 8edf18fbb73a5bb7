"""`kpac weights`: lists weights that can be loaded by name."""

import argparse

from kpac.commands.arguments import Subcommands, add_command


def add(commands: Subcommands) -> None:
    """Adds the command to the parser."""
    command = add_command(commands, "weights", weights, "list the weights that can be loaded by name")
    command.add_argument(
        "name", nargs="?", metavar="NAME", help="print the card of these weights: their training and results"
    )


def weights(options: argparse.Namespace) -> None:
    from kpac.weights.store import find_weights, known_weights

    known = known_weights()
    if options.name:
        find_weights(options.name)
        print(known[options.name].card.read_text(encoding="utf-8"), end="")
        return
    width = max(map(len, known), default=0)
    for entry in known.values():
        print(
            f"{entry.name:{width}}  {entry.summary} ({'downloaded at first use' if entry.url else 'with the package'})"
        )
