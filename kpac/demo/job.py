"""One photograph being restored in a thread of its own, which tells how far it is and can be cancelled."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kpac.errors import UserError
from kpac.images import Photograph, from_float, read_photograph
from kpac.inspect.attention import attention_of
from kpac.models.interface import ImageNetwork
from kpac.restore.restorer import Restorer

PREVIEW = 2048  # pixels, the longest side of what the page shows; the file to download has the photograph's own size
ATTENTION = 1024  # pixels, the longest side at which attention is looked at, as `kpac inspect` does
_one_at_a_time = threading.Lock()  # a pass takes all cores; one that was cancelled ends before the next begins


@dataclass
class Restored:
    """What a job gives.

    Args:
        file: the restored photograph, at its own bit depth and with its metadata.
        original, result: previews, H x W x 3 uint8.
        attention: for each block with scale attention the expected dilation, laid over the photograph; with a title.
        seconds: of the network's pass.
        memory_gb: a GPU's peak, or, on a CPU, the peak of the process.
        size: height and width of the photograph.
        bit_depth: of its file.
        tile: side of the tiles, None for one pass over the whole.
    """

    file: Path
    original: np.ndarray
    result: np.ndarray
    seconds: float
    memory_gb: float
    size: tuple[int, int]
    bit_depth: int
    tile: int | None
    attention: list[tuple[np.ndarray, str]] = field(default_factory=list)


class Cancelled(Exception):
    """Somebody does not want the result any more."""


class Job(threading.Thread):
    """Restores one photograph.

    Args:
        model: the network.
        options: of `kpac.Restorer`: tile, precision, device.
        views: files by view; "center" is the photograph.
        output: where to write it.
        quality: of JPEG and WebP, 1 to 100.
        attention: looks at what scale attention weighs, too.
    """

    def __init__(
        self,
        model: ImageNetwork,
        options: Mapping[str, Any],
        views: Mapping[str, Path],
        output: Path,
        quality: int = 95,
        attention: bool = False,
    ):
        super().__init__(daemon=True)
        self.model, self.options, self.views = model, options, views
        self.output, self.quality, self.wants_attention = output, quality, attention
        self.stage = "waiting for the photograph before"
        self.share: float | None = None
        self.result: Restored | None = None
        self.error: str | None = None
        self._cancelled = threading.Event()
        self._peak = 0

    def cancel(self) -> None:
        """Ends the job within a tile or, in a pass over the whole, a layer."""
        self._cancelled.set()

    @property
    def is_cancelled(self) -> bool:
        return self._cancelled.is_set()

    def watch(self) -> None:
        """Notes how much memory the process takes now."""
        self._peak = max(self._peak, psutil.Process().memory_info().rss)

    def run(self) -> None:
        """The work of the thread; what goes wrong becomes one sentence in `error`."""
        try:
            with _one_at_a_time, _Cancelling(self._cancelled):
                self.result = self._restore()
        except Cancelled:
            pass
        except UserError as error:
            self.error = self._without_folders(str(error))
        except MemoryError:
            self.error = "out of memory for the photograph itself; cut it into parts"
        except Exception as error:  # the page must not wait for ever
            self.error = f"this photograph could not be restored ({type(error).__name__})"
            raise
        finally:
            if self.is_cancelled:
                self.output.unlink(missing_ok=True)

    def _restore(self) -> Restored:
        self.stage = "reading"
        photographs = {name: read_photograph(path) for name, path in self.views.items()}
        center = photographs["center"]
        images = {name: photograph.image for name, photograph in photographs.items()}
        restorer = Restorer(self.model, progress=self._progress, **self.options)
        restorer.check_views(list(images))
        self.stage = "restoring"
        on_gpu = restorer.device.type == "cuda"
        if on_gpu:
            torch.cuda.reset_peak_memory_stats(restorer.device)
        height, width = images["center"].shape[:2]
        if restorer.tile == "auto":
            restorer.tile = restorer.choose_tile(height, width)  # as it would, and to be told
        start = time.perf_counter()
        restored = restorer(images["center"], images.get("left"), images.get("right"))
        seconds = time.perf_counter() - start
        self.watch()
        memory = torch.cuda.max_memory_allocated(restorer.device) if on_gpu else self._peak
        self.stage, self.share = "writing", None
        center.with_image(restored).save(self.output, self.quality)
        attention = self._attention(images) if self.wants_attention else []
        return Restored(
            self.output,
            _preview(images["center"]),
            _preview(restored),
            seconds,
            memory / 1e9,
            (height, width),
            _bits(center),
            restorer.tile,
            attention,
        )

    def _attention(self, images: dict[str, np.ndarray]) -> list[tuple[np.ndarray, str]]:
        self.stage = "looking at scale attention"
        small = {name: _reduced(image, ATTENTION) for name, image in images.items()}
        _, blocks = attention_of(self.model, small["center"], small.get("left"), small.get("right"))
        return [
            (_overlay(small["center"], block.expected_dilation), _title(number, block.expected_dilation))
            for number, block in enumerate(blocks, 1)
            if block.scale is not None
        ]

    def _progress(self, share: float) -> None:
        self.share = share

    def _without_folders(self, message: str) -> str:
        """A message that names a file as its owner does."""
        for path in self.views.values():
            message = message.replace(str(path), path.name)
        return message


class _Cancelling(TorchDispatchMode):
    """Ends the computation at the next operation on tensors once an event is set; the results stay the same bits."""

    def __init__(self, event: threading.Event):
        super().__init__()
        self.event = event

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.event.is_set():
            raise Cancelled
        return operation(*args, **(kwargs or {}))


def _bits(photograph: Photograph) -> int:
    return 8 * photograph.pixels.dtype.itemsize


def _reduced(image: np.ndarray, longest: int) -> np.ndarray:
    height, width = image.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return image
    return cv2.resize(
        image, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA
    )


def _preview(image: np.ndarray) -> np.ndarray:
    return from_float(_reduced(image, PREVIEW), 8)


def _overlay(image: np.ndarray, dilation: np.ndarray, opacity: float = 0.6) -> np.ndarray:
    """A map in false colours, dark for small and bright for large, over the photograph; H x W x 3 uint8."""
    from matplotlib import colormaps

    height, width = image.shape[:2]
    factor = 1 << (max(1, -(-height // dilation.shape[0])) - 1).bit_length()  # an encoder halves
    whole = cv2.resize(dilation, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)[:height, :width]
    low, high = float(dilation.min()), float(dilation.max())
    colors = colormaps["viridis"]((whole - low) / ((high - low) or 1.0))[..., :3]
    return from_float(opacity * colors + (1 - opacity) * image, 8)


def _title(number: int, dilation: np.ndarray) -> str:
    return f"block {number}: expected dilation {dilation.min():.2f} (dark) to {dilation.max():.2f} (bright)"
