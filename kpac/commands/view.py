"""`kpac view`: shows results side by side, and training runs, in a browser."""

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from kpac.commands.arguments import Subcommands, add_command, add_plugin_argument, positive, say
from kpac.errors import UserError

if TYPE_CHECKING:
    from kpac.reporting.pages.view import Pages

PORT = 8017


def add(commands: Subcommands) -> None:
    """Adds the command to the parser."""
    command = add_command(
        commands, "view", view, "write pages for a browser: results side by side, and curves of trainings"
    )
    command.add_argument(
        "paths",
        type=Path,
        nargs="+",
        metavar="PATH",
        help="results.json files, folders that contain them, or run folders",
    )
    command.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for the pages (default: view, in PATH if it is a single folder)",
    )
    command.add_argument("--overwrite", action="store_true", help="write even if the folder holds other files")
    command.add_argument(
        "--serve",
        action="store_true",
        help="serve the pages at a loopback address until Ctrl-C; without --output, nothing is kept and scenes are "
        "rendered on demand",
    )
    command.add_argument(
        "--port", type=port, default=PORT, metavar="N", help=f"port of --serve; 0 for any free one (default: {PORT})"
    )
    command.add_argument(
        "--restore", action="store_true", help="compute outputs that were not kept, with the networks that made them"
    )
    command.add_argument("--attention", action="store_true", help="also draw the scale attention of KPAC networks")
    command.add_argument(
        "--refresh",
        type=positive,
        metavar="SECONDS",
        help="reload runs at this interval until they are finished",
    )
    command.add_argument(
        "--data",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="new folder of a data set that was moved; repeatable",
    )
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    add_plugin_argument(command)


def view(options: argparse.Namespace) -> int:
    from kpac.models.registry import load_plugins
    from kpac.reporting.pages.view import Pages, default_folder

    load_plugins(options.plugin)
    pages = Pages(options.paths, options.data, options.restore, options.attention, options.device)
    if options.refresh and not pages.runs:
        raise UserError("--refresh: none of the paths is the folder of a run; leave out --refresh")
    if options.serve and not options.output:
        with tempfile.TemporaryDirectory(prefix="kpac-view-") as temporary:
            pages.write(Path(temporary), scenes=False, refresh=options.refresh)
            return _serve(pages, Path(temporary), options)
    folder = options.output or default_folder(options.paths)
    pages.write(folder, options.overwrite, refresh=options.refresh)
    say(f"written: {folder / 'index.html'}")
    if options.serve:
        return _serve(pages, folder, options)
    if options.refresh:
        say(f"reloading the runs every {options.refresh} s; Ctrl-C stops")
        pages.refresh(folder, options.refresh)
    return 0


def _serve(pages: "Pages", folder: Path, options: argparse.Namespace) -> int:
    import threading

    if options.refresh:
        threading.Thread(target=pages.refresh, args=(folder, options.refresh), daemon=True).start()
    pages.serve(folder, options.port, lambda address: say(f"open {address} in a browser; Ctrl-C stops the server"))
    return 0


def port(text: str) -> int:
    """Argument type for the number of a port."""
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected 0 to 65535, found '{text}'")
    return int(text)
