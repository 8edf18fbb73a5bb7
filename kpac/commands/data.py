"""`kpac data`: checks, caches and synthesizes data sets."""

import argparse
import json
from pathlib import Path

from kpac.commands.arguments import Subcommands, add_command, add_group, add_layout_arguments, fraction, positive, say
from kpac.commands.remedies import REMEDIES
from kpac.errors import UserError
from kpac.files import from_home


def add(commands: Subcommands) -> None:
    """Adds the commands to the parser."""
    groups = add_group(commands, "data", "check, decode and make data sets")
    command = add_command(groups, "check", check, "decode every image and compare every pair of a data set")
    command.add_argument("root", type=Path, metavar="DIR", help="folder of the data set")
    add_layout_arguments(command)
    command.add_argument("--json", action="store_true", help="print JSON instead of tables")

    command = add_command(groups, "cache", cache, "decode a data set into the store that training reads from")
    command.add_argument("root", type=Path, metavar="DIR", help="folder of the data set")
    add_layout_arguments(command)
    command.add_argument(
        "--split",
        nargs="+",
        metavar="SPLIT",
        help="train, val, test (default: train and val, or test in a set without them)",
    )
    command.add_argument(
        "--views",
        nargs="+",
        default=["center"],
        choices=("center", "left", "right"),
        metavar="VIEW",
        help="center, left, right (default: center)",
    )
    command.add_argument("--cache", type=Path, metavar="DIR", help="folder of the store (default: as in training)")
    command.add_argument("--verify", action="store_true", help="decode again, compare, and replace what differs")

    command = add_command(groups, "synthesize", synthesize, "render defocus and dual-pixel views of sharp photographs")
    command.add_argument(
        "--photos",
        required=True,
        metavar="DIR",
        help="folder of photographs, or 'skimage' for the photographs of scikit-image",
    )
    command.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the data set")
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


def check(options: argparse.Namespace) -> int:
    from kpac.data.check import check
    from kpac.data.check_report import check_json, check_text

    reports = check(options.root, options.layout, options.pair_by_order)
    print(json.dumps(check_json(reports), indent=2) if options.json else check_text(reports, "--json lists them"))
    faults = [fault.kind for report in reports for fault in report.faults]
    if "pairing" in faults:
        say(f"pairing: {REMEDIES['pair_by_order']}")
    return int(bool(faults))


def cache(options: argparse.Namespace) -> int:
    from kpac.data.cache import DecodedCache, default_folder
    from kpac.data.layouts import find_scenes, splits_in
    from kpac.text import bytes_text

    there = splits_in(options.root, options.layout)
    paths = [
        path
        for split in options.split or [split for split in there if split != "test"] or there
        for scene in find_scenes(
            options.root, split, options.views, options.layout, targets=False, pair_by_order=options.pair_by_order
        )
        for path in scene.paths
    ]
    store = DecodedCache(options.cache or default_folder(options.root))
    store.prepare(paths)
    say(f"{store.folder}: holds the {len(paths)} images, {bytes_text(store.size(paths))}")
    if options.verify:
        differing = store.verify(paths)
        for path in differing:
            say(f"{path}: differed from the stored copy; decoded again")
        store.forget(differing)
        store.prepare(differing)
        return int(bool(differing))
    return 0


def synthesize(options: argparse.Namespace) -> None:
    from kpac.data.synthesis.dataset import scenes_of_each, synthesize
    from kpac.data.synthesis.photos import folder_photos, skimage_photos
    from kpac.data.synthesis.settings import SynthesisSettings

    settings = SynthesisSettings.from_options(vars(options), options.recipe)
    if options.photos == "skimage":
        if options.depth:
            raise UserError("--depth: the photographs of scikit-image have depth maps; name a folder with --photos")
        photos = skimage_photos()
    else:
        photos = folder_photos(from_home(options.photos), options.depth, options.val, options.test, settings.seed)
    synthesize(photos, options.output, settings, options.workers, options.overwrite)
    scenes = sum(scenes_of_each(len(photos), settings.scenes))
    say(f"data set: {options.output}, {len(photos)} photographs, {scenes} scenes")


def _settings_arguments(command: argparse.ArgumentParser) -> None:
    """Adds the recipe, and a flag for each of its settings; defaults and checks come from the schema."""
    from kpac.data.synthesis.settings import SynthesisSettings, recipe_names

    names = ", ".join(recipe_names())
    command.add_argument(
        "--recipe", metavar="NAME", help=f"settings to start from: {names}, or a YAML file (default: as listed below)"
    )
    group = command.add_argument_group("camera and scenes; LOW:HIGH draws a value for every scene")
    for name, field in SynthesisSettings.model_fields.items():
        if name == "depth_maps":  # a mapping, set in recipe files only
            continue
        sentence = field.description or name
        text = sentence[0].lower() + sentence[1:].rstrip(".")
        if field.default is not None:
            text += f" (default: {_default_text(field.default)})"
        group.add_argument("--" + name.replace("_", "-"), metavar="N", default=argparse.SUPPRESS, help=text)


def _default_text(value: object) -> str:
    if isinstance(value, tuple):
        return ":".join(f"{bound:g}" for bound in dict.fromkeys(value))
    return str(value)
