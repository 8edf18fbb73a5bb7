"""What is right and what is wrong with a data set: every image decoded, every pair compared."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from kpac.data.headers import ImageHeader, read_header
from kpac.data.images import BitDepth, bits, read_pixels, to_float
from kpac.data.layouts import Layout, find_layout, splits_in
from kpac.data.pairing import published_pairs, same_names, target_names
from kpac.errors import UserError

PUBLISHED_SIZES = {"1680x1120", "1120x1680"}
ROLES = ("center", "left", "right", "target")


@dataclass(frozen=True)
class ImageFacts:
    """What decoding one image told.

    Args:
        size: "WIDTHxHEIGHT", as it is shown.
        bit_depth: of one channel.
        header: what the file says of itself.
        digest: of the pixels.
        sharpness: see `sharpness`.
    """

    size: str
    bit_depth: BitDepth
    header: ImageHeader | None
    digest: bytes
    sharpness: float


@dataclass(frozen=True)
class Fault:
    """Something that is wrong.

    Args:
        kind: in one or two words, such as "missing view".
        text: the file, and what is wrong with it.
    """

    kind: str
    text: str


@dataclass
class SplitReport:
    """One split of a data set.

    Args:
        split: train, val or test.
        layout: how it lies on disk.
        images: role (a view, or "target") -> files.
        facts: file -> what decoding told; unreadable files are missing here.
        faults: what is wrong, in the order of the checks.
        published: whether the names are those of DPDD's published split.
        shared_targets: targets with the pixels of another target of this split.
    """

    split: str
    layout: str
    images: dict[str, list[Path]]
    facts: dict[Path, ImageFacts] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    published: bool = False
    shared_targets: int = 0

    @property
    def sizes(self) -> dict[str, int]:
        """Size -> number of images."""
        return dict(Counter(facts.size for facts in self.facts.values()).most_common())

    @property
    def bit_depths(self) -> dict[int, int]:
        """Bits a channel -> number of images."""
        return dict(Counter(facts.bit_depth for facts in self.facts.values()).most_common())

    def verdict(self) -> str:
        """One sentence on the split as a whole."""
        scenes = f"{len(self.images['center'])} scenes"
        if self.faults:
            count = len(self.faults)
            return f"{self.split}: {scenes}, {count} fault{'s' if count > 1 else ''}"
        if not self.published:
            return f"{self.split}: {scenes}, nothing wrong"
        absent = [role for role in ROLES if role not in self.images]
        without = f", without its {' and '.join(absent)} views" if absent else ""
        return f"{self.split}: this is the published DPDD {self.split} split, complete ({scenes}){without}"


def check(root: Path, layout: str = "auto") -> list[SplitReport]:
    """Checks every split that a folder holds.

    Args:
        root: the data set's folder.
        layout: a name in `kpac.data.layouts.LAYOUTS`, or "auto" to look.

    Raises:
        UserError: nothing in the folder is known.
    """
    reports = []
    for split in splits_in(root, layout):
        kind, base = find_layout(root, split, layout, targets=False)
        report = SplitReport(split, kind.name, dict(_images(root, split, kind, base)))
        _decode(report)
        report.faults += [
            *_empty(report),
            *_same_names(report),
            *_missing_views(report),
            *_unpaired(report),
            *_against_the_published_list(report),
            *_unequal(report),
            *_swapped(report),
        ]
        reports.append(report)
    _find_duplicates(reports)
    return reports


def sharpness(pixels: np.ndarray) -> float:
    """How much detail an image has: the variance of the Laplacian of its green channel at half size, over its squared
    mean. Half size and area averaging keep noise out of it.

    Shape: H x W x 3 integers -> a number from 0.
    """
    green = to_float(pixels[..., 1])
    half = cv2.resize(green, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) if min(green.shape) > 1 else green
    return float(cv2.Laplacian(half, cv2.CV_32F).var() / max(green.mean() ** 2, 1e-9))


def _images(root: Path, split: str, layout: Layout, base: str) -> Iterator[tuple[str, list[Path]]]:
    for role in layout.folders:
        if role in ("center", "target") or layout.folder(root, base, split, role).is_dir():
            yield role, layout.images(root, base, split, role)


def _decode(report: SplitReport) -> None:
    paths = [path for images in report.images.values() for path in images]
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:  # OpenCV decodes outside of Python's lock
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
    digest = hashlib.blake2b(np.ascontiguousarray(pixels), digest_size=16).digest()
    return ImageFacts(f"{width}x{height}", bits(pixels), read_header(path), digest, sharpness(pixels))


def _empty(report: SplitReport) -> Iterator[Fault]:
    for role, images in report.images.items():
        if not images:
            yield Fault("no images", f"{report.split}: the folder of the {role} images holds none, or is not there")


def _same_names(report: SplitReport) -> Iterator[Fault]:
    for images in report.images.values():
        for first, second in same_names(images):
            yield Fault("same name", f"{second}: has the name of {first}")


def _missing_views(report: SplitReport) -> Iterator[Fault]:
    centers = {path.stem: path for path in report.images["center"]}
    for role in ("left", "right"):
        if role not in report.images:
            continue
        there = {path.stem: path for path in report.images[role]}
        for name in sorted(centers.keys() - there.keys()):
            yield Fault("missing view", f"{centers[name]}: has no {role} view")
        for name in sorted(there.keys() - centers.keys()):
            yield Fault("extra view", f"{there[name]}: has no center view")


def _unpaired(report: SplitReport) -> Iterator[Fault]:
    if "target" not in report.images:
        return
    sources, targets = report.images["center"], report.images["target"]
    names = target_names(sources, targets)
    if names is None:
        if len(sources) != len(targets):
            yield Fault("pairing", f"{len(sources)} inputs and {len(targets)} targets share no names")
        return
    there = {path.stem: path for path in targets}
    for path, name in zip(sources, names, strict=True):
        if name not in there:
            yield Fault("missing target", f"{path}: its target {name} is not there")
    for name in sorted(there.keys() - set(names)):
        yield Fault("extra target", f"{there[name]}: belongs to no input")


def _against_the_published_list(report: SplitReport) -> Iterator[Fault]:
    published = published_pairs()
    names = {path.stem for path in report.images["center"]}
    expected = published[report.split].keys()
    split_of = {name: split for split, pairs in published.items() for name in pairs}
    report.published = bool(names) and len(names & split_of.keys()) > len(names) / 2
    if not report.published:
        return
    if "target" not in report.images:
        yield Fault("missing targets", f"{report.split}: the names are DPDD's, but there is no folder of targets")
    for name in sorted(expected - names):
        yield Fault("missing scene", f"{name}: in the published {report.split} list, but not here")
    for name in sorted(names - expected):
        where = f"in the published {split_of[name]} list" if name in split_of else "in no published list"
        yield Fault("extra scene", f"{name}: here, but {where}")
    for path, facts in report.facts.items():
        if facts.size not in PUBLISHED_SIZES or facts.bit_depth != 16:
            yield Fault(
                "not as published", f"{path}: {facts.size}, {facts.bit_depth} bits; published: 1680x1120, 16 bits"
            )


def _scenes(report: SplitReport) -> Iterator[dict[str, Path]]:
    """The readable images of each scene, by role, as far as they can be put together."""
    by_role = {role: {path.stem: path for path in images} for role, images in report.images.items()}
    centers, targets = report.images["center"], report.images.get("target", [])
    names: Sequence[str] | None = target_names(centers, targets) if targets else []
    if names is None:
        names = [path.stem for path in targets] if len(centers) == len(targets) else []
    for index, path in enumerate(centers):
        wanted = dict.fromkeys(("center", "left", "right"), path.stem)
        if index < len(names):
            wanted["target"] = names[index]
        scene = {role: by_role[role][name] for role, name in wanted.items() if name in by_role.get(role, {})}
        yield {role: path for role, path in scene.items() if path in report.facts}


def _unequal(report: SplitReport) -> Iterator[Fault]:
    for scene in _scenes(report):
        first, *others = scene.values() or [None]
        for path in others:
            found, expected = report.facts[path], report.facts[first]
            if found.size != expected.size:
                yield Fault("size", f"{path}: is {found.size}, {first} of the same scene {expected.size}")
            if found.bit_depth != expected.bit_depth:
                yield Fault("bit depth", f"{path}: has {found.bit_depth} bits, {first} {expected.bit_depth}")


def _swapped(report: SplitReport) -> Iterator[Fault]:
    for scene in _scenes(report):
        if "center" in scene and "target" in scene:
            blurred, sharp = (report.facts[scene[role]] for role in ("center", "target"))
            if sharp.sharpness < blurred.sharpness:
                yield Fault("swapped", f"{scene['target']}: is blurrier than its input {scene['center']}")


def _find_duplicates(reports: list[SplitReport]) -> None:
    """Equal pixels in two files, wherever they are: also a test image among the training images.

    Several inputs may share one target, as when a scene was taken with several apertures, but within their split.
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
                report.faults.append(Fault("duplicate", f"{path}: has the pixels of {original}"))
