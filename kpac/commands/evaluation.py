"""`kpac evaluate`."""

import argparse
from pathlib import Path

from kpac.commands.arguments import Subcommands, add_command, add_plugin_argument


def add(commands: Subcommands) -> None:
    """Adds the commands to the parser."""
    command = add_command(commands, "evaluate", evaluate, "score a model on a data set, under a named protocol")
    command.add_argument("model", type=Path, metavar="MODEL", help="a .safetensors file or the folder of a run")
    command.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the data set")
    command.add_argument("--split", default="test", help="train, val or test (default: test)")
    command.add_argument("--protocol", default="dpdd-8bit", help="dpdd-8bit or dpdd-16bit (default: dpdd-8bit)")
    command.add_argument(
        "--output", type=Path, metavar="DIR", help="folder for the results (default: in the run's folder)"
    )
    command.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="(default: auto)")
    add_plugin_argument(command)


def evaluate(options: argparse.Namespace) -> None:
    from kpac.evaluation.results import evaluate_weights
    from kpac.evaluation.tables import summary_table
    from kpac.models.registry import load_plugins

    load_plugins(options.plugin)
    results, folder = evaluate_weights(
        options.model, options.data, options.split, options.protocol, options.output, options.device
    )
    print(f"\n{options.model} on {options.data}, {options.split} split, protocol {results['protocol']}\n")
    print(summary_table(results))
    print(f"\n{folder}/report.md, results.json, comparison.png")
