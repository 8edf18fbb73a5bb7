"""`kpac train`."""

import argparse

from kpac.commands.arguments import Subcommands, add_command, add_config_arguments, say


def add(commands: Subcommands) -> None:
    """Adds the commands to the parser."""
    command = add_command(commands, "train", train, "train a network as a YAML file says")
    add_config_arguments(command)
    command.add_argument("--overwrite", action="store_true", help="replace an earlier run of this name")


def train(options: argparse.Namespace) -> None:
    from kpac.config import load_config
    from kpac.training.trainer import train

    config = load_config(options.config, options.overrides)
    folder = train(config, overwrite=options.overwrite)
    say(f"trained: {folder}/checkpoints/best.safetensors")
