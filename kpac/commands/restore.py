"""`kpac restore`: restores photographs."""

import argparse
from pathlib import Path

from kpac.commands.arguments import Subcommands, add_command, add_plugin_argument, chosen_model, positive, say


def add(commands: Subcommands) -> None:
    """Adds the command to the parser."""
    command = add_command(commands, "restore", restore, "restore photographs with a trained model")
    command.add_argument(
        "photos", nargs="+", metavar="PHOTO", help="PNG, TIFF, JPEG, WebP, BMP or HEIC files, folders, or patterns"
    )
    command.add_argument(
        "-m",
        "--model",
        type=Path,
        help="a .safetensors file, a run's folder, or a name from 'kpac weights' (default: the package's weights)",
    )
    command.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="PLACE",
        help="folder for the results, or a file for a single photograph",
    )
    command.add_argument("--left", type=Path, metavar="VIEW", help="left dual-pixel view, or a folder of them")
    command.add_argument("--right", type=Path, metavar="VIEW", help="right dual-pixel view, or a folder of them")
    command.add_argument("--overwrite", action="store_true", help="replace earlier results")
    command.add_argument(
        "--tile",
        type=tile,
        default="auto",
        metavar="N|whole|auto",
        help="side of the tiles in pixels; tiles do not change the result (default: auto, tiles if memory is short)",
    )
    command.add_argument(
        "--approximate", action="store_true", help="blend overlapping tiles, for networks without exact tiles"
    )
    command.add_argument(
        "--precision",
        default="auto",
        choices=("auto", "float32", "bfloat16", "float16"),
        help="number format (default: auto, float32 on a CPU and float16 on a GPU)",
    )
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    command.add_argument(
        "--quality",
        type=quality,
        default=95,
        metavar="1-100",
        help="quality of JPEG, WebP and HEIC files (default: 95)",
    )
    add_plugin_argument(command)


def restore(options: argparse.Namespace) -> int:
    """Restores photographs; returns 1 if one could not be restored."""
    from kpac.errors import Stopped
    from kpac.models.registry import load_plugins
    from kpac.models.weights import load_model
    from kpac.restore.photos import plan, restore_photos
    from kpac.restore.record import Recipe
    from kpac.restore.restorer import Restorer

    load_plugins(options.plugin)
    views = ("center", "left", "right") if options.left or options.right else ("center",)
    weights = chosen_model(options.model, views)
    restorer = Restorer(
        load_model(weights), options.tile, options.precision, options.device, options.approximate, progress=True
    )
    given = {"center": True, "left": options.left, "right": options.right}
    restorer.check_views([name for name, view in given.items() if view])
    recipe = Recipe.of(weights, restorer, options.quality)
    planned = plan(options.photos, options.output, recipe, options.left, options.right, options.overwrite)
    try:
        failed = restore_photos(restorer, planned, recipe)
    except KeyboardInterrupt:
        raise Stopped("interrupted; repeat the command to restore the rest", 130) from None
    say(f"{planned.summary(failed, '--overwrite replaces them')}: {options.output}")
    return 1 if failed else 0


def tile(text: str) -> int | str | None:
    """Argument type for tiles: a side in pixels, "auto", or None for "whole"."""
    if text in ("auto", "whole"):
        return None if text == "whole" else text
    if not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a side in pixels such as 512, 'whole' or 'auto', found '{text}'")
    return positive(text)


def quality(text: str) -> int:
    """Argument type for a quality of 1 to 100."""
    if not text.isdigit() or not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError(f"expected 1 to 100, found '{text}'")
    return int(text)
