"""The pictures of one scene, as 8-bit pixels that a browser can show."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kpac.data.dataset import SceneDataset
from kpac.errors import UserError
from kpac.evaluation.evaluator import to_array
from kpac.images import from_float
from kpac.reporting.pages.gallery import Gallery, Key, Scene
from kpac.reporting.pages.networks import MethodNetwork

MAPPING = (
    "Images are shown with 8 bits a channel: a value of 16 bits v becomes v * 255 / 65535, rounded to the nearest, and "
    "a float v becomes v * 255, rounded."
)


@dataclass(frozen=True)
class Picture:
    """One image or map.

    Args:
        name: "input", "target", "method-NUMBER", "blur", or "attention-NUMBER-BLOCK".
        pixels: uint8, H x W x 3, or H x W for a map.
        facts: of a map: "low" and "high", the quantities that 0 and 255 stand for; "factor", image pixels a side that
            one of its pixels covers.
    """

    name: str
    pixels: np.ndarray
    facts: dict[str, Any] = field(default_factory=dict)


class Pictures:
    """Reads the pictures of a gallery, or computes those that were not kept.

    Args:
        gallery: what is shown.
        restore: computes missing outputs with the networks that made them.
        attention: computes the maps of scale attention.
        device: for both, see `kpac.environment.choose_device`.

    Raises:
        UserError: results without any kept output, and `restore` is off or cannot compute them.
    """

    def __init__(self, gallery: Gallery, restore: bool = False, attention: bool = False, device: str = "auto"):
        self.gallery, self.restores = gallery, restore
        self.networks: dict[Key, MethodNetwork] = {}
        for item in gallery.sets:
            for key, method in item.methods.items():
                network = MethodNetwork(method, gallery.protocol, device)
                missing = [name for name in method.records if not method.outputs.has(item.files.get(name), name)]
                if not (restore and network.exists):
                    method.outputs.check(list(method.records))
                elif missing:
                    _ = network.network  # whose weights may be gone
                self.networks.setdefault(key, network)
        if attention:
            with_attention = [key for key in gallery.keys if self.networks[key].attending]
            if not with_attention:
                raise UserError("--attention: none of the results are of a network with scale attention; leave it out")
            self.attention = set(with_attention)
        else:
            self.attention = set()

    def of(self, scene: Scene) -> Iterator[Picture]:
        """The pictures of a scene: input, target, outputs, maps; those that there are.

        Raises:
            UserError: a file cannot be read, or is of another size than the input.
        """
        files = scene.data_set.files.get(scene.name)
        if files is None:
            return
        protocol = self.gallery.protocol
        read = SceneDataset([files], protocol.bit_depth)[0]
        image = to_array(protocol.prepare(read.views[:3]))
        yield Picture("input", from_float(image, 8))
        if read.target is not None:
            yield Picture("target", from_float(to_array(protocol.prepare(read.target)), 8))
        for number, key in enumerate(self.gallery.keys):
            method = scene.data_set.methods.get(key)
            if method is None or scene.name not in method.records:
                continue
            kept = method.outputs.find(files, scene.name)
            if kept:
                output = method.outputs.read(kept)
                if output.shape != image.shape:
                    raise UserError(
                        f"{kept}: is {output.shape[1]}x{output.shape[0]}, the input of scene '{scene.name}' "
                        f"{image.shape[1]}x{image.shape[0]}; evaluate again with --save-images"
                    )
            elif self.restores and self.networks[key].exists:
                output = self.networks[key].restore(scene.data_set, scene.name)
            else:
                continue
            yield Picture(f"method-{number}", from_float(output, 8))
            if key in self.attention:
                for block, attention in self.networks[key].attention(scene.data_set, scene.name):
                    yield _map(f"attention-{number}-{block}", attention.expected_dilation, image)
        blur = blur_file(files.views["center"])
        if blur and protocol.downsize == 1:
            radius = np.abs(cv2.imread(str(blur), cv2.IMREAD_UNCHANGED).astype(np.float32))
            yield _map("blur", np.rot90(radius, files.quarter_turns), image)


def blur_file(center: Path) -> Path | None:
    """The true circle of confusion of a scene, which `kpac data synthesize` writes beside its images."""
    path = center.parents[1] / "blur" / f"{center.stem}.tiff"
    return path if path.is_file() else None


def thumbnail(pixels: np.ndarray, width: int = 160) -> np.ndarray:
    """An image made smaller to a width, in pixels; H x W x 3 uint8."""
    height = max(1, round(pixels.shape[0] * width / pixels.shape[1]))
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


def _map(name: str, values: np.ndarray, image: np.ndarray) -> Picture:
    low, high = float(values.min()), float(values.max())
    span = (high - low) or 1.0
    factor = 1 << (max(1, -(-image.shape[0] // values.shape[0])) - 1).bit_length()  # an encoder halves
    return Picture(name, from_float((values - low) / span, 8), {"low": low, "high": high, "factor": factor})
