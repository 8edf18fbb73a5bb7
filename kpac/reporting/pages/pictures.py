"""The pictures of one scene, as 8-bit pixels that a browser can show."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from kpac.data.layouts import SceneFiles
from kpac.errors import UserError
from kpac.evaluation.evaluator import to_array
from kpac.evaluation.methods import read_array
from kpac.images import from_float, read_pixels, to_float
from kpac.inspect.attention import pixels_per_position
from kpac.reporting.pages.gallery import Gallery, GalleryScene, Key
from kpac.reporting.pages.networks import MethodNetwork

MAPPING = (
    "Images are shown with 8 bits per channel: a 16-bit value v as v * 255 / 65535, a float v as v * 255, both rounded "
    "to the nearest integer."
)


@dataclass(frozen=True)
class Picture:
    """One image or map.

    Args:
        name: "input", "target", "method-NUMBER", "blur", or "attention-NUMBER-BLOCK".
        pixels: uint8, H x W x 3, or H x W for a map.
        facts: for a map: "low" and "high", the values shown as 0 and 255; "factor", the side in image pixels of one map
            pixel. Empty for an image.
    """

    name: str
    pixels: np.ndarray
    facts: dict[str, Any] = field(default_factory=dict)


class Pictures:
    """Reads the pictures of a gallery, or computes those that were not kept.

    Args:
        gallery: the results to show.
        restore: computes missing outputs with the networks that made them.
        attention: computes maps of scale attention.
        device: device for these computations; see `kpac.environment.choose_device`.

    Raises:
        UserError: some results have no kept outputs, and these cannot be computed; or no network has attention.
    """

    def __init__(self, gallery: Gallery, restore: bool = False, attention: bool = False, device: str = "auto"):
        self.gallery, self.restores = gallery, restore
        self.networks: dict[Key, MethodNetwork] = {}
        for item in gallery.sets:
            for key, method in item.methods.items():
                network = MethodNetwork(method, gallery.protocol, device)
                missing = [name for name in method.records if not method.outputs.has(item.files.get(name), name)]
                if not (restore and network.exists):
                    if not method.outputs.by_stem:
                        count, folder = len(method.records), method.outputs.folder
                        raise UserError(f"{method.file}: no outputs of its {count} scenes in {folder}", "restore")
                elif missing:
                    _ = network.network  # raises now if the weights are missing
                self.networks.setdefault(key, network)
        if attention:
            with_attention = [key for key in gallery.keys if self.networks[key].attending]
            if not with_attention:
                raise UserError("no result comes from a network with scale attention", "no_attention")
            self.attention = set(with_attention)
        else:
            self.attention = set()

    def of(self, scene: GalleryScene) -> Iterator[Picture]:
        """Yields the available pictures of a scene: input, target, outputs, maps.

        Raises:
            UserError: a file cannot be read, or is of another size than the input.
        """
        files = scene.data_set.files.get(scene.name)
        if files is None:
            return
        image = self._read(files, files.views["center"])
        yield Picture("input", image)
        if files.target:
            yield Picture("target", self._read(files, files.target))
        for number, key in enumerate(self.gallery.keys):
            method = scene.data_set.methods.get(key)
            if method is None or scene.name not in method.records:
                continue
            kept = method.outputs.find(files, scene.name)
            if kept:
                output = read_output(kept)
                if output.shape != image.shape:
                    raise UserError(
                        f"{kept}: is {output.shape[1]}x{output.shape[0]}, but the input of scene '{scene.name}' is "
                        f"{image.shape[1]}x{image.shape[0]}",
                        "save_images",
                    )
            elif self.restores and self.networks[key].exists:
                output = from_float(self.networks[key].restore(scene.data_set, scene.name), 8)
            else:
                continue
            yield Picture(f"method-{number}", output)
            if key in self.attention:
                for block, attention in self.networks[key].attention(scene.data_set, scene.name):
                    yield _map(f"attention-{number}-{block}", attention.expected_dilation, image)
        blur = blur_file(files.views["center"])
        if blur and self.gallery.protocol.downsize == 1:
            stored: Any = cv2.imread(str(blur), cv2.IMREAD_UNCHANGED)
            radius = np.abs(stored.astype(np.float32))
            yield _map("blur", np.rot90(radius, files.quarter_turns), image)

    def _read(self, files: SceneFiles, path: Path) -> np.ndarray:
        """Reads an input or target at the protocol's size, in 8 bits.

        Avoids floats where possible: a frame takes four times the memory as floats.
        """
        protocol = self.gallery.protocol
        pixels = np.rot90(read_pixels(path, protocol.bit_depth), files.quarter_turns)
        if protocol.downsize == 1:
            return in_8_bits(pixels)
        tensor = torch.from_numpy(to_float(pixels).transpose(2, 0, 1).copy())
        return from_float(to_array(protocol.prepare(tensor)), 8)


def in_8_bits(pixels: np.ndarray) -> np.ndarray:
    """Converts integers of 8 or 16 bits to 8 bits; see `MAPPING`."""
    return pixels if pixels.dtype == np.uint8 else from_float(to_float(pixels), 8)


def read_output(path: Path) -> np.ndarray:
    """Reads a method's output, an image file or floats in a .npy file, as 8 bits."""
    return from_float(read_array(path), 8) if path.suffix == ".npy" else in_8_bits(read_pixels(path))


def blur_file(center: Path) -> Path | None:
    """File of a scene's true circle of confusion, as `kpac data synthesize` writes it; None if there is none."""
    path = center.parents[1] / "blur" / f"{center.stem}.tiff"
    return path if path.is_file() else None


def thumbnail(pixels: np.ndarray, width: int = 160) -> np.ndarray:
    """Reduces an image, H x W x 3 uint8, to a width in pixels."""
    height = max(1, round(pixels.shape[0] * width / pixels.shape[1]))
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


def _map(name: str, values: np.ndarray, image: np.ndarray) -> Picture:
    low, high = float(values.min()), float(values.max())
    span = (high - low) or 1.0
    factor = pixels_per_position(image.shape[:2], values.shape)
    return Picture(name, from_float((values - low) / span, 8), {"low": low, "high": high, "factor": factor})
