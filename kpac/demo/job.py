"""Restores one photograph in a thread, with progress and cancellation."""

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
from kpac.images import bits, from_float, read_photograph
from kpac.inspect.attention import attention_of, pixels_per_position
from kpac.models.interface import ImageNetwork
from kpac.restore.restorer import Restorer

PREVIEW = 2048  # longest side of the page's images, in pixels; the file to download has the photograph's own size
ATTENTION = 1024  # longest side of the image for attention maps, in pixels, as in `kpac inspect`
ADVICE = {  # what to do on the page, by the remedies of `UserError`
    "approximate_tile": "try a smaller photograph",
    "precision": "start the page again in float32",
    "tile": "try a smaller photograph, or start the page again with tiles of {tile}",
}
_one_at_a_time = threading.Lock()  # one pass uses all cores; the next waits until it ends or is cancelled


@dataclass
class JobResult:
    """Result of a job.

    Args:
        file: the restored photograph, with the original's bit depth and metadata.
        original, result: previews, H x W x 3 uint8.
        attention: for each block with scale attention, the expected dilation drawn over the photograph, and a title.
        seconds: run time of the network.
        memory_gb: peak memory of the GPU; on a CPU, of the process.
        size: height and width of the photograph.
        bit_depth: bit depth of the photograph's file.
        tile: side of the tiles in pixels; None for one pass over the whole image.
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
    """Raised inside a job that was cancelled."""


class RestoreJob(threading.Thread):
    """Restores one photograph.

    Args:
        model: the network.
        options: arguments of `kpac.Restorer`: tile, precision, device.
        views: view -> file; "center" is the photograph.
        output: file to write.
        quality: quality of JPEG and WebP, 1 to 100.
        attention: also computes maps of scale attention.
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
        self.stage = "waiting for the previous photograph"
        self.share: float | None = None
        self.result: JobResult | None = None
        self.error: str | None = None
        self._cancelled = threading.Event()
        self._peak = 0

    def cancel(self) -> None:
        """Cancels the job, which ends at the network's next operation."""
        self._cancelled.set()

    @property
    def is_cancelled(self) -> bool:
        return self._cancelled.is_set()

    def watch(self) -> None:
        """Updates the peak memory of the process; call it repeatedly during the job."""
        self._peak = max(self._peak, psutil.Process().memory_info().rss)

    def run(self) -> None:
        """Restores the photograph in the thread; failures become one sentence in `error`."""
        try:
            with _one_at_a_time, _Cancelling(self._cancelled):
                self.result = self._restore()
        except Cancelled:
            pass
        except UserError as error:
            advice = ADVICE.get(error.remedy or "", "").format(**error.values)
            self.error = self._without_folders("; ".join(filter(None, [str(error), advice])))
        except MemoryError:
            self.error = "out of memory: the photograph is too large; cut it into parts"
        except Exception as error:  # otherwise the page would wait forever
            self.error = f"this photograph could not be restored ({type(error).__name__})"
            raise
        finally:
            if self.is_cancelled:
                self.output.unlink(missing_ok=True)

    def _restore(self) -> JobResult:
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
            restorer.tile = restorer.choose_tile(height, width)  # chosen here to be part of the result
        start = time.perf_counter()
        restored = restorer(images["center"], images.get("left"), images.get("right"))
        seconds = time.perf_counter() - start
        self.watch()
        memory = torch.cuda.max_memory_allocated(restorer.device) if on_gpu else self._peak
        self.stage, self.share = "writing", None
        center.with_image(restored).save(self.output, self.quality)
        attention = self._attention(images) if self.wants_attention else []
        return JobResult(
            self.output,
            _preview(images["center"]),
            _preview(restored),
            seconds,
            memory / 1e9,
            (height, width),
            bits(center.pixels),
            restorer.tile,
            attention,
        )

    def _attention(self, images: dict[str, np.ndarray]) -> list[tuple[np.ndarray, str]]:
        self.stage = "drawing scale attention"
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
        """Shortens paths of the views in a message to file names."""
        for path in self.views.values():
            message = message.replace(str(path), path.name)
        return message


class _Cancelling(TorchDispatchMode):
    """Raises `Cancelled` at the next tensor operation once an event is set; does not change any result."""

    def __init__(self, event: threading.Event):
        super().__init__()
        self.event = event

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.event.is_set():
            raise Cancelled
        return operation(*args, **(kwargs or {}))


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
    """Draws a map over the photograph in false colours, dark for small and bright for large; H x W x 3 uint8."""
    from matplotlib import colormaps

    height, width = image.shape[:2]
    factor = pixels_per_position((height, width), dilation.shape)
    whole = cv2.resize(dilation, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)[:height, :width]
    low, high = float(dilation.min()), float(dilation.max())
    colors = colormaps["viridis"]((whole - low) / ((high - low) or 1.0))[..., :3]
    return from_float(opacity * colors + (1 - opacity) * image, 8)


def _title(number: int, dilation: np.ndarray) -> str:
    return f"block {number}: expected dilation {dilation.min():.2f} (dark) to {dilation.max():.2f} (bright)"
