"""Content of a results page: data sets, methods, and the union of their scenes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from kpac.data.layouts import SceneFiles, find_scenes
from kpac.errors import UserError
from kpac.evaluation.results import protocol_of
from kpac.files import short_path
from kpac.reporting.comparison import ResultFiles, data_title
from kpac.reporting.outputs import KeptOutputs

Key = tuple[str, str]  # identifies a method: label and SHA-256 of the weights ("" without weights)


@dataclass(frozen=True)
class MethodResults:
    """One method on one data set."""

    file: Path  # results.json
    results: dict[str, Any]  # its content
    records: dict[str, dict[str, Any]]  # scene name -> entry in results.json
    outputs: KeptOutputs  # the kept output images


@dataclass
class DataSet:
    """One split of a data set under the protocol of the page."""

    title: str  # name of the data set in tables
    data: Path  # folder of the data set
    split: str  # this and the next two: see `kpac.data.layouts.find_scenes`
    layout: str
    pair_by_order: bool = False
    methods: dict[Key, MethodResults] = field(default_factory=dict)  # the evaluated methods

    def find_scenes(self, views: Sequence[str]) -> list[SceneFiles]:
        """The scenes of the set with these views; see `kpac.data.layouts.find_scenes`."""
        return find_scenes(self.data, self.split, views, self.layout, targets=False, pair_by_order=self.pair_by_order)

    @cached_property
    def files(self) -> dict[str, SceneFiles]:
        """The scenes of the set, by name.

        Raises:
            UserError: the folder is missing, or has no such split.
        """
        try:
            return {scene.name: scene for scene in self.find_scenes(("center",))}
        except UserError as error:
            first = next(iter(self.methods.values())).file
            raise UserError(f"{first}: its data cannot be read: {error}; was the set moved?", "data") from None


@dataclass(frozen=True)
class GalleryScene:
    """One scene of the union: its data set, its name, and its group ("indoor" or "outdoor") if the set is labelled."""

    data_set: DataSet
    name: str
    group: str | None


class Gallery:
    """The results of several methods on the same data sets.

    Args:
        found: from `kpac.evaluation.results.find_results`.
        data: new folders of data sets that were moved. A folder replaces the data set of the same name; with a single
            data set, the name may differ.

    Raises:
        UserError: results of different protocols, or the same method on the same data twice.
    """

    def __init__(self, found: ResultFiles, data: Sequence[Path] = ()):
        first_file, first = found[0]
        self.protocol = protocol_of(first)
        self.sets: list[DataSet] = []
        for file, results in found:
            if results["protocol_settings"] != first["protocol_settings"]:
                raise UserError(
                    f"{file}: scored under protocol '{results['protocol']}', but {first_file} under "
                    f"'{first['protocol']}'; these scores are not comparable, so make separate pages"
                )
            self._add(file, results)
        self._place(data)
        self.keys: list[Key] = list(dict.fromkeys(key for item in self.sets for key in item.methods))
        self.labels = _tell_apart(self.keys)
        self.scenes = [scene for item in self.sets for scene in _scenes(item)]

    def _add(self, file: Path, results: dict[str, Any]) -> None:
        place = (Path(results["data"]), results["split"])
        known = next((item for item in self.sets if (item.data, item.split) == place), None)
        if known is None:
            known = DataSet(data_title(results), *place, results["layout"], results.get("pair_by_order", False))
            self.sets.append(known)
        key = (results["label"], results["model"].get("sha256") or "")
        if key in known.methods:
            raise UserError(
                f"{file}: the same method on the same data as {known.methods[key].file}; leave one of them out"
            )
        records = {record["name"]: record for record in results["images"]}
        for other in known.methods.values():
            for name in records.keys() & other.records.keys():
                pixels = [item.get("pixels") for item in (records[name], other.records[name])]
                if None not in pixels and pixels[0] != pixels[1]:
                    raise UserError(
                        f"{file}: scene '{name}' has other pixels than in {other.file}; the data changed between the "
                        "evaluations, so evaluate both again"
                    )
        known.methods[key] = MethodResults(file, results, records, KeptOutputs(file, results))

    def _place(self, folders: Sequence[Path]) -> None:
        for folder in folders:
            fits = [item for item in self.sets if item.data.name == folder.resolve().name] or self.sets
            if len({item.data for item in fits}) > 1:
                names = ", ".join(sorted({item.data.name for item in self.sets}))
                raise UserError(f"{folder}: expected a folder with the name of a data set: {names}")
            for item in fits:
                item.data = folder

    def gaps(self) -> list[str]:
        """Sentences on missing scores and images: scenes not scored by every method, outputs not kept."""
        sentences = []
        for item in self.sets:
            names = [scene.name for scene in self.scenes if scene.data_set is item]
            for key, method in item.methods.items():
                label = self.labels[key]
                unscored = [name for name in names if name not in method.records]
                lost = [name for name in method.records if not method.outputs.has(item.files.get(name), name)]
                for what, missing in (("was not scored on", unscored), ("kept no output of", lost)):
                    if missing:
                        more = f" and {len(missing) - 3} more" if missing[3:] else ""
                        where = f" of {item.title}" if len(self.sets) > 1 else ""
                        count = f"{len(missing)} of {len(names)} scenes"
                        sentences.append(f"{label} {what} {count}{where}: {', '.join(missing[:3])}{more}.")
            gone = [name for name in names if name not in item.files]
            if gone:
                sentences.append(f"{len(gone)} scenes are no longer in {short_path(item.data)}, such as {gone[0]}.")
        return sentences


def _scenes(item: DataSet) -> list[GalleryScene]:
    """The union of the scenes of all methods, each at its place in the first method that has it."""
    union = {name: record.get("group") for method in item.methods.values() for name, record in method.records.items()}
    return [GalleryScene(item, name, group) for name, group in union.items()]


def _tell_apart(keys: Sequence[Key]) -> dict[Key, str]:
    """Labels of methods; if different weights have the same label, their hash's first digits are appended."""
    labels = [label for label, _ in keys]
    return {
        (label, sha256): f"{label} ({sha256[:8]})" if sha256 and labels.count(label) > 1 else label
        for label, sha256 in keys
    }
