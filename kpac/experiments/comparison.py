"""A comparison in one YAML file: methods, data sets, protocols, metrics, and the tables and figures to write."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, field_validator, model_validator

from kpac.config import Section, read_yaml, validate
from kpac.config.sections import RUN_NAME
from kpac.errors import UserError
from kpac.evaluation.methods import Method, Network, SavedImages
from kpac.evaluation.protocols import find_protocol
from kpac.evaluation.request import Evaluation
from kpac.experiments.scoring import ScoringSection
from kpac.text import file_name


class MethodSection(Section):
    weights: Path | None = None
    """A run's folder, a weights file, a checkpoint of another project, or a name from `kpac weights`. A path alone, as
    in `KPAC: runs/mine`, sets this key."""
    images: Path | None = None
    """Instead of weights: a folder with one output image per scene, made by any program."""

    @model_validator(mode="after")
    def _one_of_both(self) -> "MethodSection":
        if (self.weights is None) == (self.images is None):
            raise ValueError("expected either '{prefix}weights' or '{prefix}images'")
        return self


class DataSection(Section):
    root: Path
    """Folder of the data set; relative to the working directory."""
    split: str = "test"
    """train, val or test."""
    layout: str = "auto"
    """Layout of the folder, a name from data/README.md; "auto" detects it."""
    pair_by_order: bool = False
    """Pairs images by the sorted order of their names, even if the names differ."""


class TableSection(Section):
    published: bool = False
    """Adds published numbers, if the images are the published ones."""
    groups: bool = False
    """Adds means over indoor and over outdoor scenes."""
    intervals: bool = False
    """Adds confidence intervals of the means over images."""
    paired: str | None = None
    """Method with which all others are compared image by image; null for none."""


class ScatterSection(Section):
    metric: str = "psnr"
    """Metric on the vertical axis: psnr, ssim, mae, lpips."""
    cost: str = "macs"
    """Cost on the horizontal axis: macs, parameters, seconds."""


class SheetSection(Section):
    scenes: list[str] = []
    """Names of scenes; empty for the first scene."""
    crops: Annotated[int, Field(ge=1)] = 1
    """Number of crops to enlarge, where input and target differ most."""
    crop: Annotated[int, Field(ge=1)] = 96
    """Height of the crops, in pixels."""
    errors: bool = False
    """Also draws maps of the absolute error."""


class DrawSection(Section):
    table: TableSection = TableSection()
    """Tables, one for each protocol; always written, as Markdown, LaTeX, CSV and JSON."""
    scatter: ScatterSection | None = ScatterSection()
    """Chart of quality against cost; null for none."""
    sheet: SheetSection | None = SheetSection()
    """Sheet of input, outputs and target side by side; null for none. Keeps all outputs as images."""
    page: bool = True
    """Writes a page for a browser, as `kpac view` does. Keeps all outputs as images."""


class ComparisonFile(ScoringSection):
    name: Annotated[str, Field(pattern=RUN_NAME)]
    """Name of the comparison; its folder is `OUTPUT/NAME`."""
    output: Path = Path("results")
    """Folder of all comparisons; relative to the working directory."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to compute on; "auto" uses a CUDA device if there is one."""
    plugins: list[str] = []
    """Python files or modules that register networks of your own."""
    methods: Annotated[dict[str, MethodSection], Field(min_length=1)]
    """Name in tables -> weights, or `{images: DIR}`."""
    data: Annotated[dict[str, DataSection], Field(min_length=1)]
    """Name -> data set."""
    protocols: Annotated[list[str], Field(min_length=1)] = ["dpdd-8bit"]
    """Names from `kpac protocols`, or FILE.yaml:NAME."""
    draw: DrawSection = DrawSection()
    """Tables, charts, sheets and pages to write."""

    @field_validator("methods", mode="before")
    @classmethod
    def _weights_alone(cls, methods: Any) -> Any:
        if not isinstance(methods, dict):
            return methods
        return {label: {"weights": source} if isinstance(source, str) else source for label, source in methods.items()}

    @field_validator("protocols")
    @classmethod
    def _each_once(cls, protocols: list[str]) -> list[str]:
        twice = next((name for name, count in Counter(protocols).items() if count > 1), None)
        if twice:
            raise ValueError(f"should hold each protocol once, found '{twice}' twice")
        return protocols


@dataclass(frozen=True)
class Task:
    """One evaluation of a comparison."""

    label: str
    source: MethodSection  # weights or images to evaluate
    evaluation: Evaluation  # data, protocol and metrics
    folder: Path  # folder for the results

    def method(self, device: torch.device) -> Method:
        """Loads the method on a device.

        Raises:
            UserError: the method cannot be loaded.
        """
        if self.source.images:
            return SavedImages(self.source.images, device, self.label)
        return Network(self.source.weights or Path(), device, self.label)


@dataclass(frozen=True)
class Comparison:
    """A comparison, checked as far as possible without loading models or images."""

    file: ComparisonFile  # content of the YAML file
    folder: Path  # folder for all results
    tasks: tuple[Task, ...]  # every method on every data set under every protocol

    def by_protocol(self) -> Iterator[tuple[str, list[Task]]]:
        """Yields the name of each protocol, and its tasks."""
        for name in self.file.protocols:
            yield find_protocol(name).name, [task for task in self.tasks if task.evaluation.protocol == name]


def load_comparison(path: Path, output: Path | None = None, device: str | None = None) -> Comparison:
    """Reads and checks a comparison.

    Args:
        path: a YAML file; see `ComparisonFile`.
        output, device: override the keys of the file.

    Raises:
        UserError: a mistake in the file, a method given twice, or a missing file or folder.
    """
    tree = read_yaml(path)
    file = validate(ComparisonFile, tree, [(str(path), tree)])
    if device:
        file = file.model_copy(update={"device": device})
    places: dict[Path, str] = {}
    for label, source in file.methods.items():
        place = source.images or source.weights or Path()
        is_name = source.images is None and len(place.parts) == 1 and not place.suffix
        if not place.exists() and not is_name:
            kind = "folder" if source.images else "file or folder"
            raise UserError(f"{path}: methods.{label}: {place}: no such {kind}")
        other = places.setdefault(place.resolve(), label)
        if other != label:
            raise UserError(f"{path}: methods.{label}: '{other}' also names {place}; give each method once")
    for label, data in file.data.items():
        if not data.root.is_dir():
            raise UserError(f"{path}: data.{label}: {data.root}: no such folder")
    paired = file.draw.table.paired
    if paired is not None and paired not in file.methods:
        raise UserError(
            f"{path}: draw.table.paired: no method is called '{paired}'; expected one of {', '.join(file.methods)}"
        )
    folder = (output or file.output) / file.name
    tasks = []
    for protocol in file.protocols:
        name = find_protocol(protocol).name
        for data_label, data in file.data.items():
            evaluation = Evaluation(
                data=data.root,
                split=data.split,
                layout=data.layout,
                pair_by_order=data.pair_by_order,
                protocol=protocol,
                save_images=file.save_images or file.draw.page or file.draw.sheet is not None,
                **file.metric_options(),
            )
            for label, source in file.methods.items():
                place = folder / "evaluations" / file_name(label) / f"{file_name(data_label)}-{data.split}-{name}"
                tasks.append(Task(label, source, evaluation, place))
    twice = next((place for place, count in Counter(task.folder for task in tasks).items() if count > 1), None)
    if twice:
        raise UserError(
            f"{path}: two evaluations would write to {twice}; choose names that differ in letters or digits"
        )
    return Comparison(file, folder, tuple(tasks))


def draw(comparison: Comparison, found: Sequence[tuple[Path, dict[str, Any]]]) -> tuple[list[str], list[Path]]:
    """Writes the tables, figures and page of a comparison.

    Args:
        comparison: a comparison whose evaluations are finished.
        found: results.json files and their content, in the order of the tasks.

    Returns:
        Lines to print, including the tables as Markdown; and the written files.
    """
    from kpac.reporting.charts import scatter
    from kpac.reporting.comparison import compare
    from kpac.reporting.describe import describe
    from kpac.reporting.formats import markdown, write_table
    from kpac.reporting.pages.view import Pages
    from kpac.reporting.published import DATA_SET
    from kpac.reporting.sheets import comparison_sheet

    file, lines, written = comparison.file, [], []
    results = dict(zip([task.folder for task in comparison.tasks], found, strict=True))
    for name, tasks in comparison.by_protocol():
        folder = comparison.folder if len(file.protocols) == 1 else comparison.folder / name
        chosen = [results[task.folder] for task in tasks]
        options = file.draw.table
        published = options.published and any(item["data_set"] == DATA_SET for _, item in chosen)
        if options.published and not published:
            lines.append(f"published numbers are left out: none of the data sets is the published {DATA_SET}")
        table = compare(chosen, options.groups, False, published, options.intervals, options.paired)
        written += write_table(table, folder)
        (folder / "methods.txt").write_text(describe(chosen), encoding="utf-8")
        written.append(folder / "methods.txt")
        lines.append(markdown(table))
        if file.draw.scatter and any(item["cost"] for _, item in chosen):
            path = folder / "scatter.png"
            scatter(compare(chosen[: len(file.methods)]), [path, path.with_suffix(".pdf")], **vars(file.draw.scatter))
            written.append(path)
        for data_label, data in file.data.items() if file.draw.sheet else ():
            place = (data.root, data.split)
            same = [results[t.folder] for t in tasks if (t.evaluation.data, t.evaluation.split) == place]
            sheet, stem = file.draw.sheet, f"{file_name(data_label)}-{data.split}"
            assert sheet
            for errors in (False, True) if sheet.errors else (False,):
                paths = [folder / f"{'errors' if errors else 'comparison'}-{stem}{end}" for end in (".png", ".pdf")]
                comparison_sheet(same, sheet.scenes, paths, (), sheet.crops, sheet.crop, errors)
                written.append(paths[0])
        if file.draw.page:
            Pages([path for path, _ in chosen]).write(folder / "page", True)
            written.append(folder / "page" / "index.html")
    return lines, written
