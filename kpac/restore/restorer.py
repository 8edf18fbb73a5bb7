"""Restores images in memory with a trained network, whole or in tiles."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from kpac.cpu import THREAD_BYTES, accelerate, plain_class, runs_in_bands
from kpac.environment import choose_device
from kpac.errors import UserError
from kpac.memory import is_exhausted
from kpac.models.interface import ImageNetwork
from kpac.models.network import KPACNet
from kpac.precision import full_float32
from kpac.restore.approximate import restore_approximately
from kpac.restore.memory import available_bytes, peak_bytes
from kpac.restore.progress import Progress
from kpac.restore.tiling import kept_values, restore_in_tiles
from kpac.text import bytes_text

Precision = Literal["auto", "float32", "bfloat16", "float16"]
DEFAULT_PRECISION = {"cpu": "float32", "cuda": "float16", "mps": "float32"}  # measured in docs/restore.md
TILES = (1024, 512, 256, 128)  # sides that "auto" chooses from

# Memory of a pass divided by the bytes of its tensors: `python benchmarks/tiling.py` measured 1.0 for whole images of
# 24 megapixels on a CPU, and 1.17 for tiles.
OVERHEAD = 1.2
WORKSPACE = 512 << 20  # bytes for cuDNN's workspaces; on an H100, 256 MiB were 0.2 GB too few for 1120x1680 pixels


class Restorer:
    """Restores photographs of any size with one network.

        restorer = kpac.Restorer(kpac.load_model("runs/quickstart"))
        restored = restorer(image)                 # H x W x 3 float32 in [0, 1], both
        restored = restorer(center, left, right)   # dual-pixel views

    Args:
        model: made by `create_model` or `load_model`; moved to the device and put into evaluation mode. On a CPU,
            `kpac.cpu.accelerate` makes it faster.
        tile: None restores the whole image in one pass. A number is the side of tiles in pixels, which bound the
            memory; the result is the same up to rounding (below 1e-5 in float32). "auto" uses tiles if the whole image
            does not fit in the available memory.
        precision: number format of the network's layers; "auto" is float32 on a CPU and float16 on a GPU. The image
            and the residual that the network adds to it stay float32.
        device: "auto" uses a CUDA device if there is one.
        approximate: restores tiles as separate images and blends them. Works for every network, but is not exact.
        progress: True shows a bar on a terminal while tiles are restored; a function is called with the finished share.

    Raises:
        UserError: exact tiles for a network other than KPACNet, which can only be tiled approximately; or no such
            device.
    """

    def __init__(
        self,
        model: nn.Module,
        tile: int | Literal["auto"] | None = "auto",
        precision: Precision = "auto",
        device: str = "auto",
        approximate: bool = False,
        progress: Progress = False,
    ):
        if isinstance(tile, int) and tile < 1:
            raise ValueError(f"tile: expected a side of 1 pixel or more, found {tile}")
        self.device = choose_device(device)
        network = cast(ImageNetwork, model).to(self.device).eval()
        self.model = accelerate(network) if self.device.type == "cpu" else network
        self.tile = tile
        self.dtype = getattr(torch, DEFAULT_PRECISION[self.device.type] if precision == "auto" else precision)
        self.approximate = approximate
        self.progress = progress
        # Subclasses are excluded, since their `forward` may differ.
        self._tileable = approximate or plain_class(model) is KPACNet
        if isinstance(tile, int) and not self._tileable:
            raise UserError(
                f"network '{network.config['name']}' cannot be tiled exactly, unlike kpac's networks; "
                "expected tile=None, or approximate=True",
                "approximate",
            )

    def __call__(
        self, image: np.ndarray, left: np.ndarray | None = None, right: np.ndarray | None = None
    ) -> np.ndarray:
        """Restores one image.

        Args:
            image: H x W x 3 float32, sRGB in [0, 1]; the center view.
            left, right: the other views of the same size, for a network that reads dual-pixel views.

        Returns:
            H x W x 3 float32, clamped to [0, 1].

        Raises:
            UserError: missing or unneeded views; views of different sizes; not enough memory (`values` of the
                error has a tile to try); an output with NaN or infinite values.
            ValueError: an array of another shape or type.
        """
        views = self._check({"center": image, "left": left, "right": right})
        height, width = image.shape[:2]
        tile = self.choose_tile(height, width) if self.tile == "auto" else self.tile
        self._require_memory(height, width, tile)
        tiles = [tile]
        if self.tile == "auto" and self._tileable:
            tiles += [side for side in TILES if tile is None or side < tile]
        for tile in tiles:  # free memory may have shrunk since "auto" chose a tile, so smaller ones follow
            try:
                restored = self._restore(views, tile)
                break
            except (RuntimeError, MemoryError) as error:
                if not is_exhausted(error):
                    raise
                if tile == tiles[-1]:
                    raise self._out_of_memory(height, width, tile) from None
        return np.ascontiguousarray(restored[0].permute(1, 2, 0).numpy())

    def _restore(self, views: list[Tensor], tile: int | None) -> Tensor:
        """Restores views, to (1, 3, H, W) float32 in [0, 1] on the CPU."""
        with torch.inference_mode(), self._precision():
            if tile is None:
                # With channels last, convolutions need no copies in another layout; measured in docs/restore.md.
                pixels = torch.cat(views, dim=1).to(self.device, memory_format=torch.channels_last)
                restored = self.model(pixels).float().cpu()
            else:
                restore = restore_approximately if self.approximate else restore_in_tiles
                restored = restore(self.model, views, tile, self.device, self.progress)
            self._check_finite(restored)
            return restored.clamp_(0, 1)

    def choose_tile(self, height: int, width: int) -> int | None:
        """Chooses the tile for an image of this size, as `tile="auto"` does: None for the whole image, or a side.

        It is the largest tile that fits in memory, or the smallest one if none fits.
        """
        room = available_bytes(self.device)
        whole = self.estimate_bytes(height, width, None)
        if whole is None or whole <= room or not self._tileable:
            return None
        return next((tile for tile in TILES if (self.estimate_bytes(height, width, tile) or 0) <= room), TILES[-1])

    def estimate_bytes(self, height: int, width: int, tile: int | None) -> int | None:
        """Estimates the memory for restoring, without the image and the weights.

        Returns:
            Bytes; None for a network that cannot run on meta tensors.
        """
        kept = 0
        if tile is not None:
            kept = 3 * 4 * height * width
            if not self.approximate:
                kept += kept_values(self.model, height, width, tile) * self.dtype.itemsize
            height, width = min(tile + 64, height), min(tile + 64, width)
        with self._precision():
            in_bands, peak = runs_in_bands(self.model), peak_bytes(self.model, height, width, self.dtype)
        workspace = THREAD_BYTES * torch.get_num_threads() if in_bands else WORKSPACE * (self.device.type == "cuda")
        return None if peak is None else int(OVERHEAD * (peak + kept)) + workspace

    def _require_memory(self, height: int, width: int, tile: int | None) -> None:
        """Refuses an image that does not fit even in the smallest tiles: the system might kill the process."""
        if self.tile != "auto" or tile != TILES[-1] or self.device.type != "cpu":
            return
        need, room = self.estimate_bytes(height, width, tile), available_bytes(self.device)
        if need is not None and need > room:
            raise UserError(
                f"restoring {width}x{height} pixels takes {bytes_text(need)} of memory in tiles of {tile}, "
                f"{bytes_text(room)} is free; close other programs, or cut the image into parts"
            )

    def check_views(self, names: Sequence[str]) -> None:
        """Checks that the views are those that the network reads.

        Raises:
            UserError: a view is missing, or is not needed.
        """
        network = f"network '{self.model.config['name']}'"
        missing = [name for name in self.model.views if name not in names]
        if missing:
            raise UserError(f"{network} also reads dual-pixel views", "missing_views", views=missing)
        extra = [name for name in names if name not in self.model.views]
        if extra:
            raise UserError(f"{network} reads only the center view", "unneeded_views", views=extra)

    def _check(self, images: dict[str, np.ndarray | None]) -> list[Tensor]:
        """Checks images, and returns the network's views as (1, 3, H, W) tensors that share the arrays' memory."""
        given = {name: image for name, image in images.items() if image is not None}
        self.check_views(list(given))
        needed = self.model.views
        first = given["center"]
        for name in needed:
            image = given[name]
            if image.ndim != 3 or image.shape[2] != 3 or not image.size or image.dtype != np.float32:
                raise ValueError(
                    f"{name} view: expected an H x W x 3 float32 array in [0, 1], found {image.shape} {image.dtype}"
                )
            if image.shape != first.shape:
                sizes = [f"{array.shape[1]}x{array.shape[0]}" for array in (first, image)]
                raise UserError(f"the {name} view is {sizes[1]} pixels, not {sizes[0]} like the center view")
        return [torch.from_numpy(np.ascontiguousarray(given[name])).permute(2, 0, 1)[None] for name in needed]

    def _check_finite(self, restored: Tensor) -> None:
        """Refuses an output with NaN or infinity, which would look like a black or white area once it is clamped."""
        if restored.sum().isfinite():  # a sum keeps NaN and infinity, and needs no array of the image's size
            return
        bad = int((~restored.isfinite()).sum())
        if bad:
            lower = self.dtype != torch.float32
            what = (
                f"computed in {str(self.dtype).removeprefix('torch.')}; float32 is more exact"
                if lower
                else "the weights are damaged, or their training diverged; use other weights"
            )
            raise UserError(
                f"{bad:,} of {restored.numel():,} values of the output are NaN or infinite: {what}",
                "precision" if lower else None,
            )

    @contextmanager
    def _precision(self) -> Iterator[None]:
        """Context with lower precision in the network's layers; everything else is full float32 (`full_float32`)."""
        lower = self.dtype != torch.float32
        with full_float32(), torch.autocast(self.device.type, self.dtype) if lower else nullcontext():
            yield

    def _out_of_memory(self, height: int, width: int, tile: int | None) -> UserError:
        smaller = next((side for side in TILES if side < min(tile or 2 * TILES[1], height, width)), TILES[-1])
        how = "whole" if tile is None else f"in tiles of {tile}"
        return UserError(
            f"out of memory for {width}x{height} pixels {how}; smaller tiles take less",
            "tile" if self._tileable else "approximate_tile",
            tile=smaller,
        )
