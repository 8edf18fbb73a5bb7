"""The `kpac` command: one function per subcommand, no logic of its own."""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from kpac import __version__
from kpac.commands import export, inspect, restore
from kpac.commands.arguments import add_command, plugin_argument, positive, sentence
from kpac.errors import UserError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        The exit status: 0, 1 when a part of the work failed, 2 for a user's mistake (one line on stderr), 130 when interrupted.
    """
    parser = make_parser()
    options, rest = parser.parse_known_args(arguments)
    if "overrides" in options and all(re.match(r"\w+(\.\w+)*=", word) for word in rest):
        options.overrides += rest  # argparse takes them up to the first flag only
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        return options.run(options) or 0
    except UserError as error:
        print(f"kpac: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nkpac: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 141


def train(options: argparse.Namespace) -> None:
    from kpac.config import load_config
    from kpac.training.trainer import train

    config = load_config(options.config, options.overrides)
    folder = train(config, overwrite=options.overwrite)
    say(f"trained: {folder}/checkpoints/best.safetensors")


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


def info(options: argparse.Namespace) -> None:
    from kpac.evaluation.tables import cost_json, cost_table
    from kpac.models.cost import count_cost
    from kpac.models.registry import load_plugins
    from kpac.models.weights import model_of

    load_plugins(options.plugin)
    cost = count_cost(model_of(options.model, options.overrides), *options.size)
    print(json.dumps(cost_json(cost), indent=2) if options.json else cost_table(cost))


def convert(options: argparse.Namespace) -> None:
    from kpac.models.official import load_official, save_official
    from kpac.models.weights import load_model, save_model

    if options.authors:
        save_official(load_model(options.source), options.target)
        say(f"written for the authors' graph: {options.target}")
    else:
        model = load_official(options.source)
        save_model(model, options.target, source=options.source.name)
        say(f"{model.config['name']}, width {model.config['width']}, {model.config['blocks']} blocks: {options.target}")


def data_synthesize(options: argparse.Namespace) -> None:
    from kpac.data.photos import folder_photos, skimage_photos
    from kpac.data.synthetic import SynthesisSettings, synthesize

    settings = SynthesisSettings.from_options(vars(options))
    if options.photos == "skimage":
        if options.depth:
            raise UserError("--depth: the photographs of scikit-image bring their own; name a folder with --photos")
        photos = skimage_photos()
    else:
        photos = folder_photos(Path(options.photos), options.depth, options.val, options.test, settings.seed)
    synthesize(photos, options.output, settings, options.workers, options.overwrite)
    say(f"data set: {options.output}, {len(photos)} photographs, {len(photos) * settings.scenes_per_photo} scenes")


def config_show(options: argparse.Namespace) -> None:
    from kpac.config import dump_config, load_config
    from kpac.models.registry import resolve_model

    print(dump_config(resolve_model(load_config(options.config, options.overrides))), end="")


def config_schema(options: argparse.Namespace) -> None:
    from kpac.models.registry import config_schema, load_plugins

    load_plugins(options.plugin)
    print(json.dumps(config_schema(), indent=2))


def say(text: str) -> None:
    """Prints a line of prose, apart from the results on stdout."""
    print(text, file=sys.stderr)


class Parser(argparse.ArgumentParser):
    """Reports a mistake in one line, as everything else here does."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}; see {self.prog} --help", file=sys.stderr)
        sys.exit(2)


def make_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = Parser(
        prog="kpac",
        description="Defocus deblurring with kernel-sharing parallel atrous convolutions (KPAC, ICCV 2021).",
    )
    parser.add_argument("--version", action="version", version=f"kpac {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    command = add_command(commands, "train", train, "train a network as a YAML file says")
    _config_arguments(command)
    command.add_argument("--overwrite", action="store_true", help="replace an earlier run of this name")

    command = add_command(commands, "evaluate", evaluate, "score a model on a data set, under a named protocol")
    command.add_argument("model", type=Path, metavar="MODEL", help="a .safetensors file or the folder of a run")
    command.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the data set")
    command.add_argument("--split", default="test", help="train, val or test (default: test)")
    command.add_argument("--protocol", default="dpdd-8bit", help="dpdd-8bit or dpdd-16bit (default: dpdd-8bit)")
    command.add_argument(
        "--output", type=Path, metavar="DIR", help="folder for the results (default: in the run's folder)"
    )
    command.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"), help="(default: auto)")
    plugin_argument(command)

    command = add_command(commands, "info", info, "parameters and multiply-accumulates of a network, by part")
    command.add_argument(
        "model", type=Path, metavar="CONFIG|MODEL", help="a YAML file, a .safetensors file or a run's folder"
    )
    command.add_argument("overrides", nargs="*", metavar="key=value", help="for a YAML file, such as model.blocks=3")
    command.add_argument(
        "--size", type=_size, default=(1120, 1680), metavar="HxW", help="height and width (default: 1120x1680)"
    )
    command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    plugin_argument(command)

    command = add_command(
        commands, "convert", convert, "read the authors' .npz checkpoints, or write a model in their format"
    )
    command.add_argument(
        "source", type=Path, metavar="SOURCE", help="the authors' .npz; with --authors a model of ours"
    )
    command.add_argument("target", type=Path, metavar="TARGET", help="a .safetensors file; with --authors an .npz")
    command.add_argument("--authors", action="store_true", help="write the authors' format instead of reading it")

    restore.add(commands)
    export.add(commands)
    inspect.add(commands)

    groups = _group(commands, "data", "make data sets")
    command = add_command(
        groups, "synthesize", data_synthesize, "render defocus and dual-pixel views of sharp photographs"
    )
    command.add_argument(
        "--photos",
        required=True,
        metavar="DIR",
        help="folder of photographs, or 'skimage' for those inside scikit-image",
    )
    command.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to make")
    command.add_argument(
        "--depth", type=Path, metavar="DIR", help="depth maps: NAME.npy in metres, NAME.png in millimetres"
    )
    command.add_argument(
        "--val",
        type=_fraction,
        default=0.1,
        metavar="F",
        help="fraction of a folder's photographs for validation (default: 0.1)",
    )
    command.add_argument(
        "--test",
        type=_fraction,
        default=0.1,
        metavar="F",
        help="fraction of a folder's photographs for testing (default: 0.1)",
    )
    command.add_argument("--workers", type=positive, default=2, metavar="N", help="processes (default: 2)")
    command.add_argument("--overwrite", action="store_true", help="replace an earlier data set")
    _settings_arguments(command)

    groups = _group(commands, "config", "look at configurations")
    _config_arguments(
        add_command(groups, "show", config_show, "print a configuration with everything it extends, checked")
    )
    command = add_command(groups, "schema", config_schema, "print the JSON schema of configurations, for editors")
    plugin_argument(command)
    return parser


def _group(commands, name: str, summary: str):
    group = commands.add_parser(name, help=summary, description=sentence(summary))
    return group.add_subparsers(title="commands", metavar="COMMAND", required=True)


def _config_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", type=Path, metavar="CONFIG", help="a YAML file")
    command.add_argument("overrides", nargs="*", metavar="key=value", help="such as train.iterations=500")


def _size(text: str) -> tuple[int, int]:
    height, cross, width = text.partition("x")
    if not (cross and height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"expected HEIGHTxWIDTH in pixels, such as 1120x1680, found '{text}'")
    return int(height), int(width)


def _fraction(text: str) -> float:
    if not re.fullmatch(r"0?\.\d+", text):
        raise argparse.ArgumentTypeError(f"expected a fraction between 0 and 1, found '{text}'")
    return float(text)


def _settings_arguments(command: argparse.ArgumentParser) -> None:
    """One flag for each of the camera's settings; the defaults and checks are the schema's."""
    from kpac.data.camera import SynthesisSettings

    group = command.add_argument_group("camera and scenes")
    for name, field in SynthesisSettings.model_fields.items():
        default = "random" if field.default is None else field.default
        text = field.description[0].lower() + field.description[1:].rstrip(".")
        flag = "--" + name.replace("_", "-")
        group.add_argument(flag, metavar="N", default=argparse.SUPPRESS, help=f"{text} (default: {default})")


if __name__ == "__main__":
    sys.exit(main())
