"""`kpac demo`: a page in the browser to try a network on a photograph."""

import argparse
from pathlib import Path

from kpac.commands.arguments import Subcommands, add_command, add_plugin_argument, chosen_model, positive, say
from kpac.commands.restore import quality, tile
from kpac.commands.view import port


def add(commands: Subcommands) -> None:
    """Adds the command to the parser."""
    command = add_command(commands, "demo", demo, "try a network on your photographs in a browser")
    command.add_argument(
        "model",
        type=Path,
        nargs="?",
        metavar="MODEL",
        help="a .safetensors file, a run's folder, or a name from 'kpac weights' (default: the package's weights)",
    )
    command.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on; 0.0.0.0 also serves other machines (default: 127.0.0.1, this machine only)",
    )
    command.add_argument("--port", type=port, metavar="N", help="port to listen on (default: the first free from 7860)")
    command.add_argument(
        "--max-megabytes", type=positive, default=200, metavar="N", help="largest upload in MB (default: 200)"
    )
    command.add_argument(
        "--tile", type=tile, default="auto", metavar="N|whole|auto", help="tiles as in kpac restore (default: auto)"
    )
    command.add_argument(
        "--precision",
        default="auto",
        choices=("auto", "float32", "bfloat16", "float16"),
        help="number format (default: auto, float32 on a CPU and float16 on a GPU)",
    )
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    command.add_argument(
        "--quality", type=quality, default=95, metavar="1-100", help="quality of JPEG and WebP files (default: 95)"
    )
    add_plugin_argument(command)


def demo(options: argparse.Namespace) -> int:
    from kpac.demo.page import import_gradio, launch
    from kpac.models.registry import load_plugins
    from kpac.models.weights import load_model
    from kpac.restore.restorer import Restorer

    import_gradio()
    load_plugins(options.plugin)
    path = chosen_model(options.model)
    model = load_model(path)
    settings = {"tile": options.tile, "precision": options.precision, "device": options.device}
    Restorer(model, **settings)  # only to check the settings
    label = f"{model.config['name']}, {path}"
    launch(
        model,
        label,
        settings,
        options.host,
        options.port,
        options.max_megabytes,
        options.quality,
        ready=lambda address: say(f"open {address} in a browser; Ctrl-C stops the server"),
    )
    return 0
