"""The pages of an evaluation: an index of scenes, and every scene's images."""

import shlex
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from os import cpu_count
from pathlib import Path
from typing import Any

from matplotlib import colormaps

from kpac.evaluation.protocols import our_protocols
from kpac.files import short_path
from kpac.reporting.pages.encoding import write_data, write_image, write_thumbnail
from kpac.reporting.pages.gallery import Gallery, GalleryScene
from kpac.reporting.pages.pictures import MAPPING, Pictures, blur_file, thumbnail
from kpac.reporting.pages.site import render
from kpac.reporting.pages.summary import extremes, summaries
from kpac.reporting.report import model_text
from kpac.reporting.units import METRICS

COLORS = {"error": "inferno", "map": "viridis"}  # colour maps; "map" is for attention and blur
DIGITS = 6  # digits of the numbers in the page's data; the page shows fewer


class ResultsPage:
    """Writes the pages of a gallery, all at once or scene by scene.

    Args:
        gallery: the results to show.
        pictures: images of the gallery.
    """

    def __init__(self, gallery: Gallery, pictures: Pictures):
        self.gallery, self.pictures = gallery, pictures

    def write_index(self, folder: Path, has_runs: bool = False) -> None:
        """Writes index.html, scene.html and their data, without the images.

        Args:
            folder: folder of the pages.
            has_runs: whether the folder also has run.html.
        """
        write_data(folder, "data/index", self.index())
        common = {"has_runs": has_runs, "has_results": True}
        protocol = self.gallery.protocol
        known = our_protocols().get(protocol.name, protocol)
        metrics = {name for item in self._methods() for name in item.results["mean"]}
        facts = {
            "protocol": _plain(known.summary(metrics)),
            "mapping": MAPPING,
            "sets": [{"title": item.title, "path": short_path(item.data)} for item in self.gallery.sets],
            "methods": [self._describe(key) for key in self.gallery.keys],
            "gaps": self.gallery.gaps(),
            "summaries": summaries(self.gallery),
            "extremes": extremes(self.gallery),
            "count": len(self.gallery.scenes),
        }
        render(folder / "scene.html", "scene.html", **common)
        render(folder / "index.html", "index.html", **facts, **common)

    def write_scenes(self, folder: Path, done: Callable[[], object]) -> None:
        """Writes the images of all scenes, several at a time; calls `done` after each scene."""
        workers = min(cpu_count() or 1, 8)
        numbers = iter(range(1, len(self.gallery.scenes) + 1))
        with ThreadPoolExecutor(workers) as pool:
            try:
                running = [pool.submit(self.write_scene, folder, number) for number in islice(numbers, workers)]
                while running:
                    running.pop(0).result()
                    running += [pool.submit(self.write_scene, folder, number) for number in islice(numbers, 1)]
                    done()
            finally:
                pool.shutdown(cancel_futures=True)

    def write_scene(self, folder: Path, number: int) -> None:
        """Writes the images and the thumbnail of one scene; `number` counts from 1."""
        for picture in self.pictures.of(self.gallery.scenes[number - 1]):
            write_image(folder, f"images/{number}/{picture.name}", picture.pixels, picture.facts)
            if picture.name == "input":
                write_thumbnail(folder / "thumbnails" / f"{number}.webp", thumbnail(picture.pixels))

    def index(self) -> dict[str, Any]:
        """Data for the scripts of the pages: methods, metrics, and the scores of every scene."""
        gallery = self.gallery
        scenes = [self._entry(scene) for scene in gallery.scenes]
        names = {name for scene in scenes for scores in [scene["input"], *scene["scores"]] for name in scores or ()}
        return {
            "protocol": gallery.protocol.name,
            "mapping": MAPPING,
            "metrics": [{"key": name, **vars(METRICS[name])} for name in METRICS if name in names],
            "methods": [gallery.labels[key] for key in gallery.keys],
            "sets": [{"title": item.title, "results": self._quoted(item)} for item in gallery.sets],
            "scenes": scenes,
            "colors": {use: _table(name) for use, name in COLORS.items()},
        }

    def _entry(self, scene: GalleryScene) -> dict[str, Any]:
        methods = [scene.data_set.methods.get(key) for key in self.gallery.keys]
        records = [method.records.get(scene.name) if method else None for method in methods]
        files = scene.data_set.files.get(scene.name)
        before = next(record["input"] for record in records if record)
        pictures, maps = [], []
        if files:
            pictures = ["input", *(f"method-{n}" for n, record in enumerate(records) if record and self._has(n, scene))]
            pictures += ["target"] if files.target else []
            maps = ["blur"] if blur_file(files.views["center"]) and self.gallery.protocol.downsize == 1 else []
            maps += [f"attention-{n}-{b}" for n, record in enumerate(records) if record for b in self._blocks(n)]
        return {
            "name": scene.name,
            "set": self.gallery.sets.index(scene.data_set),
            **({"group": scene.group} if scene.group else {}),
            "input": _rounded(before),
            "scores": [_rounded(record) if record else None for record in records],
            "pictures": pictures,
            "maps": maps,
        }

    def _has(self, number: int, scene: GalleryScene) -> bool:
        key = self.gallery.keys[number]
        computed = self.pictures.restores and self.pictures.networks[key].exists
        return computed or scene.data_set.methods[key].outputs.has(scene.data_set.files[scene.name], scene.name)

    def _blocks(self, number: int) -> list[int]:
        key = self.gallery.keys[number]
        return self.pictures.networks[key].attending if key in self.pictures.attention else []

    def _quoted(self, item: Any) -> list[str | None]:
        """Path of each method's results.json on a data set, quoted for a shell; None if there is none."""
        methods = [item.methods.get(key) for key in self.gallery.keys]
        return [shlex.quote(short_path(method.file)) if method else None for method in methods]

    def _methods(self) -> list[Any]:
        return [method for item in self.gallery.sets for method in item.methods.values()]

    def _describe(self, key: Any) -> dict[str, str]:
        results = next(item.methods[key].results for item in self.gallery.sets if key in item.methods)
        return {"label": self.gallery.labels[key], "source": _plain(model_text(results["model"]))}


def _plain(summary: str) -> str:
    """A text without Markdown; drops a trailing "; as in ", which names no source."""
    return summary.replace("`", "").removesuffix("; as in ")


def _rounded(record: dict[str, Any]) -> dict[str, float]:
    return {name: round(record[name], DIGITS) for name in METRICS if name in record}


def _table(name: str) -> list[int]:
    """A colour map as 256 RGB triples in one list, 0 to 255."""
    return [int(value) for value in (colormaps[name](range(256), bytes=True)[:, :3]).ravel()]
