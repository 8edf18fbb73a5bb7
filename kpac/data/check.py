"""Checks a data set: decodes every image, compares every pair, and reports the faults."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from kpac.data.folders import FoundLayout, find_layout, splits_in
from kpac.data.pairing import Pairs, name_of, pair, same_names
from kpac.data.published import Kinship, kinship, published_pairs
from kpac.data.roles import ROLES
from kpac.data.sharpness import Detail, blurrier, detail, gain
from kpac.errors import UserError
from kpac.images import BitDepth, ImageHeader, bits, left_out, read_header, read_pixels


@dataclass(frozen=True)
class ImageFacts:
    """Facts about one decoded image."""

    size: str  # "WIDTHxHEIGHT", after the orientation is applied
    bit_depth: BitDepth  # bits per channel
    header: ImageHeader | None  # facts from the file's header
    digest: bytes
    detail: Detail  # fine detail; see `kpac.data.sharpness`


@dataclass(frozen=True)
class Fault:
    """One fault of a data set."""

    kind: str  # one or two words, such as "missing view"
    text: str  # the file, and what is wrong with it


@dataclass
class SplitReport:
    """The results of checking one split."""

    found: FoundLayout  # the layout of the split
    pairs: dict[str, Pairs] = field(default_factory=dict)  # role -> how its images pair with the inputs, if they do
    facts: dict[Path, ImageFacts] = field(default_factory=dict)  # without unreadable files
    faults: list[Fault] = field(default_factory=list)  # the faults, in the order of the checks
    kinship: Kinship | None = None  # relation to a published split of DPDD, if there is one
    swapped: int = 0  # number of pairs whose target is blurrier than its input
    shared_targets: int = 0  # number of targets with the same pixels as another target of this split

    @property
    def split(self) -> str:
        return self.found.split

    @property
    def layout(self) -> str:
        return self.found.layout.name

    @property
    def images(self) -> dict[str, list[Path]]:
        """Role (a view, or "target") -> files."""
        return self.found.images

    @property
    def inputs(self) -> list[Path]:
        """The center views, or the other views if there are none."""
        return next((self.images[role] for role in ROLES if self.images.get(role)), [])

    @property
    def left_out(self) -> dict[Path, dict[str, int]]:
        """Folder -> suffix -> number of files that may be photographs but cannot be read."""
        folders = dict.fromkeys(map(self.found.folder, self.images))
        return {folder: counts for folder in folders if (counts := left_out(folder))}

    @property
    def published(self) -> bool:
        """Whether these are the scenes of DPDD's published split of this name, at the published size and bit depth."""
        return self.kinship is not None and self.kinship.is_published and self.kinship.split == self.split

    @property
    def sizes(self) -> dict[str, int]:
        """Size -> number of images."""
        return dict(Counter(facts.size for facts in self.facts.values()).most_common())

    @property
    def bit_depths(self) -> dict[int, int]:
        """Bits per channel -> number of images."""
        return dict(Counter(facts.bit_depth for facts in self.facts.values()).most_common())

    def verdict(self) -> str:
        """One sentence that sums up the split."""
        scenes = f"{len(self.inputs)} scenes"
        kin = f"; {self.kinship.text()}" if self.kinship and not self.published else ""
        if self.faults:
            count = len(self.faults)
            pairs = len(self.pairs["target"].images) if "target" in self.pairs else 0
            swapped = "; the folders of inputs and targets look swapped" if 2 * self.swapped > pairs else ""
            return f"{self.split}: {scenes}, {count} fault{'s' if count > 1 else ''}{swapped}{kin}"
        if not self.published:
            return f"{self.split}: {scenes}, nothing wrong{kin}"
        absent = [role for role in ROLES if role not in self.images]
        without = f", without its {' and '.join(absent)} views" if absent else ""
        return f"{self.split}: this is the published DPDD {self.split} split, complete ({scenes}){without}"


def check(root: Path, layout: str = "auto", pair_by_order: bool = False) -> list[SplitReport]:
    """Checks every split in a folder.

    Args:
        root: the data set's folder.
        layout: a name in `kpac.data.folders.LAYOUTS`, or "auto" to detect it.
        pair_by_order: see `kpac.data.layouts.find_scenes`.

    Raises:
        UserError: the folder has no known layout.
    """
    reports = []
    for split in splits_in(root, layout):
        report = SplitReport(find_layout(root, split, layout, targets=False))
        _decode(report)
        report.faults += [
            *_empty(report),
            *_same_names(report),
            *_unpaired(report, pair_by_order),
            *_against_the_published_list(report),
            *_unequal(report),
            *_swapped(report),
        ]
        reports.append(report)
    _find_duplicates(reports)
    return reports


def _decode(report: SplitReport) -> None:
    paths = [path for images in report.images.values() for path in images]
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:  # decoding releases Python's GIL
        bar = tqdm(pool.map(_decode_one, paths), total=len(paths), desc=report.split, unit="image", disable=None)
        for path, facts in zip(paths, bar, strict=True):
            if isinstance(facts, ImageFacts):
                report.facts[path] = facts
            else:
                report.faults.append(Fault("unreadable", facts))


def _decode_one(path: Path) -> ImageFacts | str:
    try:
        pixels = read_pixels(path)
    except UserError as error:
        return str(error)
    height, width = pixels.shape[:2]
    digest = hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16).digest()
    return ImageFacts(f"{width}x{height}", bits(pixels), read_header(path), digest, detail(pixels))


def _empty(report: SplitReport) -> Iterator[Fault]:
    for role, images in report.images.items():
        if not images:
            yield Fault("no images", f"{report.split}: the folder of the {role} images is empty or missing")


def _same_names(report: SplitReport) -> Iterator[Fault]:
    for images in report.images.values():
        for first, second in same_names(images):
            yield Fault("same name", f"{second}: has the same name as {first}")


def _unpaired(report: SplitReport, by_order: bool) -> Iterator[Fault]:
    """Pairs inputs with other views and targets as training and evaluation do; yields a fault for each failure."""
    for role, images in report.images.items():
        inputs = report.inputs
        if images is inputs or not images:
            continue
        try:
            pairs = report.pairs[role] = pair(inputs, images, by_order)
        except UserError as error:
            yield Fault("pairing", str(error))
            continue
        is_target = role == "target"
        for path, partner, name in zip(inputs, pairs.partners, pairs.expected, strict=True):
            if partner is None:
                lacks = f"its target {name} is missing" if is_target and name else f"has no {role}"
                yield Fault(
                    f"missing {role if is_target else 'view'}", f"{path}: {lacks}{'' if is_target else ' view'}"
                )
        for path in pairs.left_over:
            what = "belongs to no input" if is_target else "has no center view"
            yield Fault(f"extra {role if is_target else 'view'}", f"{path}: {what}")


def _against_the_published_list(report: SplitReport) -> Iterator[Fault]:
    names = {name_of(path) for path in report.inputs}
    report.kinship = kinship(names, report.sizes, report.bit_depths)
    if report.kinship is None:
        return
    if "target" not in report.images:
        yield Fault("missing targets", f"{report.split}: the names are DPDD's, but there is no folder of targets")
    if report.split == "train" != report.kinship.split:
        yield Fault("published split", f"train: holds scenes of DPDD's {report.kinship.split} split")
    for split, pairs in published_pairs().items():
        for name in sorted(names & pairs.keys() if split != report.kinship.split else ()):
            yield Fault(
                "extra scene", f"{name}: is in the {split} list of DPDD, the others in the {report.kinship.split} list"
            )


def _scenes(report: SplitReport) -> Iterator[dict[str, Path]]:
    """Yields the readable images of each scene by role; leaves out images without a partner."""
    for index, path in enumerate(report.inputs):
        scene = {"center": path, **{role: pairs.partners[index] for role, pairs in report.pairs.items()}}
        yield {role: file for role, file in scene.items() if file in report.facts}


def _unequal(report: SplitReport) -> Iterator[Fault]:
    for scene in _scenes(report):
        if not scene:
            continue
        first, *others = scene.values()
        for path in others:
            found, expected = report.facts[path], report.facts[first]
            if found.size != expected.size:
                yield Fault("size", f"{path}: is {found.size}, but {first} of the same scene is {expected.size}")
            if found.bit_depth != expected.bit_depth:
                yield Fault("bit depth", f"{path}: has {found.bit_depth} bits, but {first} has {expected.bit_depth}")


def _swapped(report: SplitReport) -> Iterator[Fault]:
    pairs = [(scene["center"], scene["target"]) for scene in _scenes(report) if {"center", "target"} <= scene.keys()]
    facts = [[report.facts[path] for path in paths] for paths in pairs]
    compared = [
        (paths, gain(one.detail, other.detail))
        for paths, (one, other) in zip(pairs, facts, strict=True)
        if one.size == other.size
    ]
    for (source, target), is_blurrier in zip(
        [paths for paths, _ in compared], blurrier([value for _, value in compared]), strict=True
    ):
        if is_blurrier:
            report.swapped += 1
            yield Fault("swapped", f"{target}: is blurrier than its input {source}")


def _find_duplicates(reports: list[SplitReport]) -> None:
    """Finds files with equal pixels, in all splits together: a test image among the training images is a fault.

    Inputs of one split may share a target, for example photographs of a scene with several apertures.
    """
    first: dict[bytes, tuple[Path, str, str]] = {}
    for report in reports:
        role_of = {path: role for role, images in report.images.items() for path in images}
        for path, facts in report.facts.items():
            original, split, role = first.setdefault(facts.digest, (path, report.split, role_of[path]))
            if original == path:
                continue
            if split == report.split and role == role_of[path] == "target":
                report.shared_targets += 1
            else:
                report.faults.append(Fault("duplicate", f"{path}: has the same pixels as {original}"))
