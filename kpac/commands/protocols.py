"""`kpac protocols`: lists the evaluation protocols, who uses them, and their keys."""

import argparse

from kpac.commands.arguments import Subcommands, add_command


def add(commands: Subcommands) -> None:
    """Adds the command to the parser."""
    command = add_command(
        commands, "protocols", protocols, "list the evaluation protocols and who uses them, or print one as YAML"
    )
    command.add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="print this protocol with all its keys, as a template for your own; or FILE.yaml:NAME",
    )


def protocols(options: argparse.Namespace) -> None:
    from kpac.evaluation.protocols import find_protocol, our_protocols
    from kpac.reporting.tables import protocol_table, protocol_yaml

    print(protocol_yaml(find_protocol(options.name)) if options.name else protocol_table(our_protocols().values()))
