"""Compares crops per second: rendered in the loader, and read from the cache of a rendered data set.

    python benchmarks/rendering.py

Shows whether training could render defocus on the fly. Uses photographs from scikit-image, one process and no GPU.
Takes about half a minute.
"""

import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from kpac.data.cache import DecodedCache
from kpac.data.layouts import find_scenes
from kpac.data.synthesis.dataset import synthesize
from kpac.data.synthesis.photos import skimage_photos
from kpac.data.synthesis.render import render
from kpac.data.synthesis.settings import SynthesisSettings
from kpac.images import to_float

SECONDS = 8.0


def per_second(make: Callable[[int], object]) -> float:
    """Calls per second, after a warm-up call."""
    make(0)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        count += 1
        make(count)
    return count / (time.perf_counter() - start)


def main() -> None:
    settings = SynthesisSettings()
    photos = [to_float(photo.pixels(settings.size)[0]) for photo in skimage_photos() if photo.split == "train"]
    print(f"one process; {os.cpu_count()} cores, {platform.machine()}, OpenCV {cv2.__version__}\n")
    print("| crop | rendered | from the cache | ratio |\n|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as temporary:
        root = synthesize(skimage_photos(), Path(temporary) / "set", settings)
        cache = DecodedCache(Path(temporary) / "cache")
        scenes = find_scenes(root, "train")
        for crop in (96, 256):

            def rendered(position: int, crop: int = crop) -> object:
                photo = photos[position % len(photos)][:crop, :crop]
                return render(np.ascontiguousarray(photo), None, settings, (0, position))

            def cached(position: int, crop: int = crop) -> object:
                paths = scenes[position % len(scenes)].paths
                return [to_float(cache.open(path)[:crop, :crop]) for path in paths]

            slow, fast = per_second(rendered), per_second(cached)
            print(f"| {crop}x{crop} | {slow:.1f} / s | {fast:.0f} / s | {fast / slow:.0f} |", flush=True)


if __name__ == "__main__":
    main()
