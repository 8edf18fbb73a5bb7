"""`kpac evaluate`, `kpac table` and `kpac figure`: score methods, tabulate and draw the scores."""

import argparse
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from kpac.commands.arguments import (
    Subcommands,
    add_command,
    add_group,
    add_layout_arguments,
    add_plugin_argument,
    chosen_model,
    positive,
    say,
)
from kpac.commands.remedies import REMEDIES
from kpac.errors import UserError


def add(commands: Subcommands) -> None:
    """Adds the commands to the parser."""
    command = add_command(
        commands, "evaluate", evaluate, "score models, or images of any method, on data sets, under a named protocol"
    )
    command.add_argument(
        "models",
        type=Path,
        nargs="*",
        metavar="MODEL|YAML",
        help="weights files, run folders, names from 'kpac weights' (default: the package's weights), checkpoints of "
        "other projects; or one YAML file with a whole comparison",
    )
    command.add_argument(
        "--images",
        action="append",
        default=[],
        metavar="[NAME=]DIR",
        help="outputs of another method, one image per scene; repeatable",
    )
    command.add_argument(
        "--data",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="folder of a data set; repeatable (default: the data that the run was trained on)",
    )
    command.add_argument("--split", default="test", help="train, val or test (default: test)")
    add_layout_arguments(command)
    command.add_argument(
        "--protocol",
        metavar="NAME",
        help="dpdd-8bit, dpdd-16bit, saved-png-8bit, half-resolution, or FILE.yaml:NAME "
        "(default: dpdd-8bit; on a run's own data, the protocol of its validation)",
    )
    command.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for the results; several evaluations get subfolders (default: in the run's folder)",
    )
    command.add_argument(
        "--overwrite", action="store_true", help="replace the results of another model, protocol or data set"
    )
    command.add_argument(
        "--tile", type=positive, metavar="N", help="restore in tiles of N x N pixels: the same result, in less memory"
    )
    command.add_argument("--save-images", action="store_true", help="keep the outputs, at the inputs' bit depth")
    command.add_argument(
        "--lpips-weights", type=Path, metavar="FILE", help="torchvision's weights of the LPIPS backbone"
    )
    command.add_argument(
        "--require", nargs="+", default=[], choices=("lpips",), help="fail if this metric is not available"
    )
    command.add_argument(
        "--no-reference",
        nargs="+",
        default=[],
        choices=("niqe", "musiq"),
        help="metrics without targets; the package pyiqa computes them and downloads their weights",
    )
    command.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps (default: auto)")
    add_plugin_argument(command)

    command = add_command(commands, "table", table, "put results into one table, also with published numbers")
    _results_argument(command)
    command.add_argument(
        "--format",
        choices=("markdown", "latex", "csv", "json"),
        help="format of the table (default: from the output's suffix, else markdown)",
    )
    command.add_argument("--groups", action="store_true", help="add indoor and outdoor means")
    command.add_argument(
        "--published", action="store_true", help="add published numbers in sorted order, and differences if comparable"
    )
    command.add_argument(
        "--intervals", action="store_true", help="add confidence intervals of the means (Markdown, LaTeX, JSON)"
    )
    command.add_argument(
        "--paired",
        metavar="METHOD",
        help="compare the other methods with this one per image: difference, interval, p, number of images improved",
    )
    command.add_argument(
        "--describe",
        action="store_true",
        help="instead of a table, write a paragraph for a paper: data, protocol, versions, device",
    )
    command.add_argument("--mix-protocols", action="store_true", help="allow different protocols in one column")
    command.add_argument(
        "--output", type=Path, metavar="FILE", help="file to write: .md, .tex, .csv or .json (default: print)"
    )

    groups = add_group(commands, "figure", "make figures for a paper: PNG, PDF or SVG")
    for name, errors, summary in (
        ("comparison", False, "draw input, methods and target side by side, with enlarged crops"),
        ("errors", True, "draw maps of each method's absolute error"),
    ):
        command = add_command(groups, name, partial(sheet, errors), summary)
        _results_argument(command)
        command.add_argument("--scene", action="append", default=[], metavar="NAME", help="scene to draw; repeatable")
        command.add_argument(
            "--box",
            action="append",
            default=[],
            type=_box,
            metavar="TOP,LEFT,HEIGHT[,WIDTH]",
            help="crop to enlarge, in pixels; repeatable (default: where input and target differ most)",
        )
        command.add_argument("--crops", type=positive, default=1, metavar="N", help="number of crops (default: 1)")
        command.add_argument(
            "--crop", type=positive, default=96, metavar="N", help="height of the crops in pixels (default: 96)"
        )
        _figure_argument(command)
    command = add_command(groups, "scatter", scatter, "plot quality against cost")
    _results_argument(command)
    command.add_argument("--metric", default="psnr", metavar="NAME", help="psnr, ssim, mae or lpips (default: psnr)")
    command.add_argument("--cost", default="macs", metavar="NAME", help="macs, parameters or seconds (default: macs)")
    _figure_argument(command)


def evaluate(options: argparse.Namespace) -> None:
    from kpac.distributed import join_ranks
    from kpac.evaluation.folders import ResultFolders
    from kpac.evaluation.methods import Network, SavedImages, run_folder
    from kpac.evaluation.request import Evaluation, on_data_of_run
    from kpac.files import from_home
    from kpac.models.registry import load_plugins

    load_plugins(options.plugin)
    yaml = [path for path in options.models if path.suffix in (".yaml", ".yml")]
    if yaml:
        _evaluate_comparison(yaml[0], options)
        return
    if not options.models and not options.images and options.data:
        options.models = [chosen_model(None)]
    if not options.models and not options.images:
        raise UserError("evaluate: expected a model, --images with the outputs of another method, or a YAML file")
    without_data = [] if options.data else [*options.images, *(path for path in options.models if not run_folder(path))]
    if without_data:
        raise UserError(f"{without_data[0]}: expected --data with the folder of a data set; only a run has a default")
    several = len(options.models + options.images) * max(1, len(options.data)) > 1
    with join_ranks(options.device) as ranks:
        makers: list[Any] = [partial(Network, path, ranks.device, tile=options.tile) for path in options.models]
        for text in options.images:
            label, _, folder = text.rpartition("=")
            makers.append(partial(SavedImages, from_home(folder), ranks.device, label or None))
        evaluations = [
            Evaluation(
                data=data,
                split=options.split,
                layout=options.layout,
                pair_by_order=options.pair_by_order,
                protocol=options.protocol or "dpdd-8bit",
                lpips_weights=options.lpips_weights,
                no_reference=tuple(options.no_reference),
                required=tuple(options.require),
                save_images=options.save_images,
            )
            for data in options.data or [Path()]
        ]
        work = list(product(makers, evaluations))
        if not options.data:
            runs = [(make, run_folder(path)) for make, path in zip(makers, options.models, strict=True)]
            work = [(make, on_data_of_run(run, evaluations[0], options.protocol)) for make, run in runs if run]
        chosen = ResultFolders(options.output, several, options.overwrite)
        _carry_out([(make, asked, None) for make, asked in work], chosen, ranks)


def _carry_out(work: Sequence[Any], chosen: Any, ranks: Any) -> list[Path]:
    """Checks all evaluations first, then carries them out one by one.

    Args:
        work: tuples (function that makes the method, `Evaluation`, folder or None for the default).
        chosen: a `kpac.evaluation.folders.ResultFolders`.
        ranks: this rank, and communication with the other ranks.

    Returns:
        The folders of the results.
    """
    from kpac.evaluation.run import evaluate_method, find_scorable
    from kpac.files import short_path
    from kpac.reporting.report import write_report
    from kpac.reporting.tables import summary_table

    def check(make: Any, evaluation: Any, folder: Path | None) -> Path:
        method = make()
        taken = chosen.take(method, evaluation, folder)
        find_scorable(method, evaluation)
        return taken

    # Each method is made once for the checks and again below, so that only one is in memory at a time.
    folders = [ranks.on_all(partial(check, *item)) for item in work]
    told: set[tuple[str, str]] = set()
    for (make, evaluation, _), folder in zip(work, folders, strict=True):
        method = ranks.on_all(make)
        results = evaluate_method(method, evaluation, folder, ranks, write_report)
        if ranks.is_first:
            title = f"{method.label} on {evaluation.data}, {evaluation.split} split"
            print(f"\n{title}, protocol {results['protocol']}\n")
            print(summary_table(results))
            for name, reason in results["skipped"].items():
                if (name, reason) not in told:
                    hint = f"; {REMEDIES['lpips_weights']}" if name == "lpips" else ""
                    say(f"{name.upper()} is skipped: {reason}{hint}")
                told.add((name, reason))
            print(f"\n{short_path(folder)}/report.md, results.json, comparison.png")
    return folders


def _evaluate_comparison(path: Path, options: argparse.Namespace) -> None:
    """Evaluates a comparison from a YAML file; of the flags, only --device, --output and --overwrite apply."""
    from kpac.distributed import join_ranks
    from kpac.evaluation.folders import ResultFolders
    from kpac.evaluation.results import read_results
    from kpac.experiments.comparison import draw, load_comparison
    from kpac.files import short_path
    from kpac.models.registry import load_plugins

    said = {
        "another MODEL": len(options.models) > 1,
        "--images": options.images,
        "--data": options.data,
        "--split": options.split != "test",
        "--layout": options.layout != "auto",
        "--protocol": options.protocol,
        "--tile": options.tile,
        "--pair-by-order": options.pair_by_order,
        "--save-images": options.save_images,
        "--lpips-weights": options.lpips_weights,
        "--require": options.require,
        "--no-reference": options.no_reference,
    }
    twice = next((flag for flag, given in said.items() if given), None)
    if twice:
        raise UserError(f"evaluate: {path} defines the whole comparison, so {twice} cannot be given; edit the file")
    comparison = load_comparison(path, options.output, None if options.device == "auto" else options.device)
    load_plugins(comparison.file.plugins)
    with join_ranks(comparison.file.device) as ranks:
        chosen = ResultFolders(overwrite=options.overwrite)
        work = [(partial(task.method, ranks.device), task.evaluation, task.folder) for task in comparison.tasks]
        folders = _carry_out(work, chosen, ranks)
        if ranks.is_first:
            lines, written = draw(comparison, [(folder / "results.json", read_results(folder)) for folder in folders])
            print("\n" + "\n".join(lines))
            print(f"written: {', '.join(short_path(file) for file in written)}")


def table(options: argparse.Namespace) -> None:
    from kpac.evaluation.results import find_results
    from kpac.files import write_text
    from kpac.reporting.comparison import compare
    from kpac.reporting.describe import describe
    from kpac.reporting.formats import FORMATS, SUFFIXES

    suffix = options.output.suffix if options.output else ".md"
    if not options.format and suffix not in SUFFIXES and not options.describe:
        raise UserError(f"{options.output}: expected one of {', '.join(SUFFIXES)}, or --format")
    found = find_results(options.results)
    compared = compare(
        found, options.groups, options.mix_protocols, options.published, options.intervals, options.paired
    )
    text = describe(found) if options.describe else FORMATS[options.format or SUFFIXES[suffix]](compared)
    if not options.output:
        print(text, end="")
        return
    write_text(options.output, text)
    say(f"written: {options.output}")


def sheet(errors: bool, options: argparse.Namespace) -> None:
    from kpac.evaluation.results import find_results
    from kpac.reporting.sheets import comparison_sheet

    found = find_results(options.results)
    paths = _figure_files(options.output)
    comparison_sheet(found, options.scene, paths, options.box, options.crops, options.crop, errors)
    say(f"written: {', '.join(map(str, paths))}")


def scatter(options: argparse.Namespace) -> None:
    from kpac.evaluation.results import find_results
    from kpac.reporting.charts import scatter
    from kpac.reporting.comparison import compare

    paths = _figure_files(options.output)
    scatter(compare(find_results(options.results)), paths, options.metric, options.cost)
    say(f"written: {', '.join(map(str, paths))}")


def _results_argument(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "results", type=Path, nargs="+", metavar="RESULTS", help="results.json files, or folders that contain them"
    )


def _figure_argument(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="file to write: .png, .pdf or .svg; without a suffix, a PNG and a PDF",
    )


def _figure_files(output: Path) -> list[Path]:
    if output.suffix in (".png", ".pdf", ".svg"):
        return [output]
    if output.suffix:
        raise UserError(f"{output}: expected .png, .pdf or .svg, or no suffix for a PNG and a PDF")
    return [output.with_suffix(".png"), output.with_suffix(".pdf")]


def _box(text: str) -> tuple[int, int, int, int]:
    from kpac.reporting.sheets import parse_box

    try:
        return parse_box(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected TOP,LEFT,HEIGHT or TOP,LEFT,HEIGHT,WIDTH in pixels, found '{text}'"
        ) from None
