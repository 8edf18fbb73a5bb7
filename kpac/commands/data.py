"""`kpac data`: make and look after data sets."""

import argparse
from pathlib import Path

from kpac.commands.arguments import Subcommands, add_command, add_group, fraction, positive, say
from kpac.errors import UserError


def add(commands: Subcommands) -> None:
    """Adds the commands to the parser."""
    groups = add_group(commands, "data", "make data sets")
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
        type=fraction,
        default=0.1,
        metavar="F",
        help="fraction of a folder's photographs for validation (default: 0.1)",
    )
    command.add_argument(
        "--test",
        type=fraction,
        default=0.1,
        metavar="F",
        help="fraction of a folder's photographs for testing (default: 0.1)",
    )
    command.add_argument("--workers", type=positive, default=2, metavar="N", help="processes (default: 2)")
    command.add_argument("--overwrite", action="store_true", help="replace an earlier data set")
    _settings_arguments(command)


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


def _settings_arguments(command: argparse.ArgumentParser) -> None:
    """One flag for each of the camera's settings; the defaults and checks are the schema's."""
    from kpac.data.camera import SynthesisSettings

    group = command.add_argument_group("camera and scenes")
    for name, field in SynthesisSettings.model_fields.items():
        default = "random" if field.default is None else field.default
        text = field.description[0].lower() + field.description[1:].rstrip(".")
        flag = "--" + name.replace("_", "-")
        group.add_argument(flag, metavar="N", default=argparse.SUPPRESS, help=f"{text} (default: {default})")
