"""The user's door to a trained network: an image in memory in, the restored image out."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from kpac.cpu import BAND_BYTES, accelerate, pass_bytes, plain_class
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
TILES = (1024, 512, 256, 128)  # that "auto" chooses from

# What a pass takes by the bytes of its tensors: `python benchmarks/tiling.py` measured 1.0 for whole images of 24
# megapixels on a CPU, and 1.17 for tiles.
OVERHEAD = 1.2
WORKSPACE = 256 << 20  # bytes that cuDNN may take on a GPU besides; scripts/check_gpu.sh compares with the peak there


class Restorer:
    """Restores photographs of any size with one network.

        restorer = kpac.Restorer(kpac.load_model("runs/quickstart"))
        restored = restorer(image)                 # H x W x 3 float32 in [0, 1], both
        restored = restorer(center, left, right)   # dual-pixel views

    Args:
        model: made by `create_model` or `load_model`; moved to the device and put into evaluation mode. On a CPU,
            `kpac.cpu.accelerate` makes it faster.
        tile: None restores the whole image in one pass. A number restores in tiles with sides of so many pixels, with
            the same result up to rounding (below 1e-5 in float32) and at bounded memory. "auto" tiles the image if the
            whole does not fit in the memory that is available.
        precision: in which the network computes; "auto" is float32 on a CPU and float16 on a GPU. The image and what
            the network adds to it stay float32.
        device: "auto" takes a CUDA device when there is one.
        approximate: tiles are restored one by one and blended. Works for every network, and is not exact.
        progress: True shows a bar on a terminal while tiles are restored; a function is told the share that is done.

    Raises:
        UserError: exact tiles of a network other than KPACNet, which can only be tiled approximately; no such device.
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
        # A subclass may compute something else in `forward`.
        self._tileable = approximate or plain_class(model) is KPACNet
        if isinstance(tile, int) and not self._tileable:
            raise UserError(
                f"network '{network.config['name']}' cannot be tiled exactly, only kpac's own can; "
                "restore whole images, or approximately with approximate=True (--approximate)"
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
            UserError: views that the network needs and did not get, or the other way around; views of different
                sizes; not enough memory, with the tile to try; an output with NaN or infinite values.
            ValueError: an array of another shape or type.
        """
        views = self._check({"center": image, "left": left, "right": right})
        height, width = image.shape[:2]
        tile = self.choose_tile(height, width) if self.tile == "auto" else self.tile
        self._require_memory(height, width, tile)
        tiles = [tile]
        if self.tile == "auto" and self._tileable:
            tiles += [side for side in TILES if tile is None or side < tile]
        for tile in tiles:  # the memory that is free was asked for before, and others take of it
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
        """(1, 3, H, W) float32 in [0, 1] on the CPU."""
        with torch.inference_mode(), self._precision():
            if tile is None:
                # Channels last: convolutions then need no copies in another layout; measured in docs/restore.md.
                pixels = torch.cat(views, dim=1).to(self.device, memory_format=torch.channels_last)
                restored = self.model(pixels).float().cpu()
            else:
                restore = restore_approximately if self.approximate else restore_in_tiles
                restored = restore(self.model, views, tile, self.device, self.progress)
            self._check_finite(restored)
            return restored.clamp_(0, 1)

    def choose_tile(self, height: int, width: int) -> int | None:
        """What `tile="auto"` does for an image of this size: None for the whole image, or the side of the tiles.

        The largest tile that fits; the smallest one if none does.
        """
        room = available_bytes(self.device)
        whole = self.estimate_bytes(height, width, None)
        if whole is None or whole <= room or not self._tileable:
            return None
        return next((tile for tile in TILES if (self.estimate_bytes(height, width, tile) or 0) <= room), TILES[-1])

    def estimate_bytes(self, height: int, width: int, tile: int | None) -> int | None:
        """The memory that restoring will take beside the image and the weights, about.

        Returns:
            None for a network whose tensors cannot be counted without data.
        """
        kept = 0
        if tile is not None:
            kept = 3 * 4 * height * width
            if not self.approximate:
                kept += kept_values(self.model, height, width, tile) * self.dtype.itemsize
            height, width = min(tile + 64, height), min(tile + 64, width)
        with self._precision():
            peak = pass_bytes(self.model, height, width)
        if peak is not None:
            return int(OVERHEAD * (peak + kept)) + BAND_BYTES * torch.get_num_threads()
        peak = peak_bytes(self.model, height, width, self.dtype)
        workspace = WORKSPACE if self.device.type == "cuda" else 0
        return None if peak is None else int(OVERHEAD * (peak + kept)) + workspace

    def _require_memory(self, height: int, width: int, tile: int | None) -> None:
        """Refuses an image for which not even the smallest tiles fit: a system may end a program that tries."""
        if self.tile != "auto" or tile != TILES[-1] or self.device.type != "cpu":
            return
        need, room = self.estimate_bytes(height, width, tile), available_bytes(self.device)
        if need is not None and need > room:
            raise UserError(
                f"restoring {width}x{height} pixels takes {bytes_text(need)} of memory in tiles of {tile}, "
                f"{bytes_text(room)} is free; end other programs, or cut it into parts"
            )

    def check_views(self, names: Sequence[str]) -> None:
        """Refuses other views than the network reads.

        Raises:
            UserError: one is missing, or one is too many.
        """
        network = f"network '{self.model.config['name']}'"
        missing = [name for name in self.model.views if name not in names]
        if missing:
            flags = " and ".join(f"--{name}" for name in missing)
            raise UserError(f"{network} reads dual-pixel views beside the photograph; name them with {flags}")
        extra = [name for name in names if name not in self.model.views]
        if extra:
            flags = " and ".join(f"--{name}" for name in extra)
            raise UserError(f"{network} reads the center view alone; leave out {flags}")

    def _check(self, images: dict[str, np.ndarray | None]) -> list[Tensor]:
        """The views that the network reads, as (1, 3, H, W) tensors that share the arrays' memory."""
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
                raise UserError(f"the {name} view is {sizes[1]} pixels, the center view {sizes[0]}; expected the same")
        return [torch.from_numpy(np.ascontiguousarray(given[name])).permute(2, 0, 1)[None] for name in needed]

    def _check_finite(self, restored: Tensor) -> None:
        """Refuses an output that is not all numbers: clamped and rounded, it would look like a black or white place."""
        if restored.sum().isfinite():  # a sum keeps NaN and infinity, and needs no memory as large as the image
            return
        bad = int((~restored.isfinite()).sum())
        if bad:
            lower = self.dtype != torch.float32
            what = (
                f"computed in {str(self.dtype).removeprefix('torch.')}; try precision float32 (--precision float32)"
                if lower
                else "the weights are damaged, or their training diverged; take other weights"
            )
            raise UserError(f"{bad:,} of {restored.numel():,} values of the output are NaN or infinite: {what}")

    @contextmanager
    def _precision(self) -> Iterator[None]:
        """Lower precision within the network's layers; what remains is float32 as such, see `full_float32`."""
        lower = self.dtype != torch.float32
        with full_float32(), torch.autocast(self.device.type, self.dtype) if lower else nullcontext():
            yield

    def _out_of_memory(self, height: int, width: int, tile: int | None) -> UserError:
        smaller = next((side for side in TILES if side < min(tile or 2 * TILES[1], height, width)), TILES[-1])
        how = "whole" if tile is None else f"in tiles of {tile}"
        flag = "" if self._tileable else "--approximate "
        return UserError(f"out of memory for {width}x{height} pixels {how}; try {flag}--tile {smaller}")
