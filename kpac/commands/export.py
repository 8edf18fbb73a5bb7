"""`kpac export`: exports a model to ONNX or .pt2."""

import argparse
from pathlib import Path

from kpac.commands.arguments import Subcommands, add_command, add_plugin_argument, say


def add(commands: Subcommands) -> None:
    """Adds the command to the parser."""
    command = add_command(commands, "export", export, "write a model as ONNX or .pt2, checked against PyTorch")
    command.add_argument("model", type=Path, metavar="MODEL", help="a .safetensors file or a run's folder")
    command.add_argument("target", type=Path, metavar="TARGET", help="the .onnx or .pt2 file to write")
    command.add_argument("--overwrite", action="store_true", help="replace an earlier file")
    add_plugin_argument(command)


def export(options: argparse.Namespace) -> None:
    from kpac.errors import UserError
    from kpac.models.registry import load_plugins
    from kpac.models.weights import load_model
    from kpac.restore.export import checked_sizes, export_model

    if options.target.exists() and not options.overwrite:
        raise UserError(f"{options.target}: exists already; --overwrite replaces it")
    load_plugins(options.plugin)
    model = load_model(options.model)
    difference = export_model(model, options.target)
    sizes = ", ".join(f"{height}x{width}" for height, width in checked_sizes(model, options.target.suffix))
    say(f"{options.target}: differs from PyTorch by {difference:.1e} at most, on {sizes}")
