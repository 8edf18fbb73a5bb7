"""`kpac inspect`: draws a network's attention, kernels and receptive field."""

import argparse
from pathlib import Path

from kpac.commands.arguments import (
    Subcommands,
    add_command,
    add_layout_arguments,
    add_plugin_argument,
    chosen_model,
    positive,
    say,
)


def add(commands: Subcommands) -> None:
    """Adds the command to the parser."""
    command = add_command(commands, "inspect", inspect, "draw a network's attention, kernels and receptive field")
    command.add_argument(
        "items",
        nargs="*",
        type=Path,
        metavar="MODEL|PHOTO",
        help="first a .safetensors file, a run's folder or a name from 'kpac weights' (default: the package's "
        "weights), then image files (default: two photographs of scikit-image)",
    )
    command.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder for the sheets")
    command.add_argument("--left", type=Path, metavar="VIEW", help="left dual-pixel view, or a folder of them")
    command.add_argument("--right", type=Path, metavar="VIEW", help="right dual-pixel view, or a folder of them")
    command.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="a data set instead of photographs; with a synthetic one, attention is compared with the true blur",
    )
    command.add_argument("--split", default="test", help="train, val or test of the data set (default: test)")
    add_layout_arguments(command)
    command.add_argument(
        "--longest-side",
        type=positive,
        default=1024,
        metavar="N",
        help="reduce larger photographs to this many pixels (default: 1024)",
    )
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    add_plugin_argument(command)


def inspect(options: argparse.Namespace) -> None:
    from kpac.errors import UserError
    from kpac.images import SUFFIXES
    from kpac.inspect.report import correlation_table, health_table, inspect_weights
    from kpac.models.registry import load_plugins

    named = options.items[:1] if options.items and options.items[0].suffix.lower() not in SUFFIXES else []
    photos = options.items[len(named) :]
    if photos and options.data:
        raise UserError("PHOTO and --data: give one of the two")
    if (options.pair_by_order or options.layout != "auto") and not options.data:
        raise UserError("--layout and --pair-by-order: expected --data, the folder of a data set, too")
    others = {name: place for name in ("left", "right") if (place := getattr(options, name))}
    if others and not photos:
        raise UserError(f"--{' and --'.join(others)}: expected PHOTO, the center view, too")
    load_plugins(options.plugin)
    model = chosen_model(named[0] if named else None, views=("center", *others))
    result = inspect_weights(
        model,
        options.output,
        photos,
        options.data,
        options.split,
        options.longest_side,
        options.device,
        others,
        options.layout,
        options.pair_by_order,
    )
    if result["images"]:  # empty for a network without KPAC blocks
        print(f"\ncontribution of each block to the result, and its scale attention\n\n{health_table(result)}\n")
    table = correlation_table(result)
    if table:
        print("\nrank correlation with the true blur, of the expected dilation and of the branches' mean weight\n")
        print(f"{table}\n")
    if not result["images"]:
        radius = ", ".join(
            f"{share} within {pixels} pixels" for share, pixels in result["receptive_field"]["radius"].items()
        )
        print(f"the network has no KPAC blocks; effective receptive field: {radius}")
    names = "".join(f"{image['name']}.png, " for image in result["images"])
    say(f"{options.output}: {names}model.png, inspect.json")
