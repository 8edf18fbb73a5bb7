"""`kpac train`: trains a network."""

import argparse
import os
import re
from pathlib import Path

from kpac.commands.arguments import Subcommands, add_command, say
from kpac.errors import UserError
from kpac.files import from_home


def add(commands: Subcommands) -> None:
    """Adds the command to the parser."""
    command = add_command(commands, "train", train, "train a network from a YAML file, or continue a run")
    command.add_argument(
        "config", nargs="?", metavar="CONFIG", help="a YAML file (default with --resume: the run's own)"
    )
    command.add_argument("overrides", nargs="*", metavar="key=value", help="settings, such as train.iterations=500")
    command.add_argument("--overwrite", action="store_true", help="replace an earlier run of this name")
    command.add_argument("--resume", type=Path, metavar="RUN", help="continue the run in this folder")
    command.add_argument(
        "--allow-changes", action="store_true", help="continue although the configuration or the data changed"
    )


def train(options: argparse.Namespace) -> None:
    from kpac.config import load_config
    from kpac.training.run_folder import resumed_config
    from kpac.training.trainer import train

    words = [options.config, *options.overrides] if options.config else options.overrides
    file = from_home(words.pop(0)) if words and not re.match(r"\w+(\.\w+)*=", words[0]) else None
    if options.resume and options.overwrite:
        raise UserError("--resume continues a run and --overwrite replaces one; give only one")
    if options.allow_changes and not options.resume:
        raise UserError("--allow-changes needs --resume")
    if options.resume:
        config = resumed_config(options.resume, file, words)
    elif file:
        config = load_config(file, words)
    else:
        raise UserError("train: expected a YAML file, or --resume with the folder of a run")
    folder = train(config, options.overwrite, options.resume is not None, options.allow_changes)
    if int(os.environ.get("RANK", "0")) == 0:
        say(f"trained: {folder}/checkpoints/best.safetensors")
