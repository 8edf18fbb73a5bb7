"""`kpac info` and `kpac convert`: counts a network's cost, and converts the authors' checkpoints."""

import argparse
import json
from pathlib import Path

from kpac.commands.arguments import Subcommands, add_command, add_plugin_argument, say, size
from kpac.errors import UserError


def add(commands: Subcommands) -> None:
    """Adds the commands to the parser."""
    command = add_command(commands, "info", info, "count parameters and multiply-accumulates of a network, by part")
    command.add_argument(
        "model", type=Path, metavar="CONFIG|MODEL", help="a YAML file, a .safetensors file or a run's folder"
    )
    command.add_argument("overrides", nargs="*", metavar="key=value", help="settings, such as model.blocks=3")
    command.add_argument(
        "--size", type=size, default=(1120, 1680), metavar="HxW", help="size of the image (default: 1120x1680)"
    )
    command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add_plugin_argument(command)

    command = add_command(
        commands, "convert", convert, "read the authors' .npz checkpoints, or write a model in their format"
    )
    command.add_argument(
        "source", type=Path, metavar="SOURCE", help="the authors' .npz; with --authors a .safetensors file or a run"
    )
    command.add_argument(
        "target", type=Path, metavar="TARGET", help="the .safetensors file to write; with --authors the .npz"
    )
    command.add_argument("--authors", action="store_true", help="write the authors' format instead of reading it")
    command.add_argument("--overwrite", action="store_true", help="replace an earlier file")


def info(options: argparse.Namespace) -> None:
    from kpac.models.cost import count_cost
    from kpac.models.registry import load_plugins
    from kpac.models.weights import model_of
    from kpac.reporting.tables import cost_table

    load_plugins(options.plugin)
    cost = count_cost(model_of(options.model, options.overrides), *options.size)
    print(json.dumps(cost.to_json(), indent=2) if options.json else cost_table(cost))


def convert(options: argparse.Namespace) -> None:
    from kpac.models.official import load_official, save_official
    from kpac.models.weights import load_model, save_model

    _check_target(options)
    if options.authors:
        save_official(load_model(options.source), options.target)
        say(f"written in the authors' format: {options.target}")
    else:
        model = load_official(options.source)
        save_model(model, options.target, source=options.source.name)
        say(f"{model.config['name']}, width {model.config['width']}, {model.config['blocks']} blocks: {options.target}")


def _check_target(options: argparse.Namespace) -> None:
    """Refuses an output file with the wrong suffix for its format, or that exists already."""
    target = options.target
    if options.authors and target.suffix != ".npz":
        raise UserError(f"{target}: expected a name that ends in .npz; without --authors a .safetensors file is made")
    if not options.authors and target.suffix != ".safetensors":
        raise UserError(f"{target}: expected a name that ends in .safetensors; with --authors an .npz file is made")
    if target.exists() and not options.overwrite:
        raise UserError(f"{target}: exists already; --overwrite replaces it")
