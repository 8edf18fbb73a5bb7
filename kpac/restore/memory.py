"""Estimates the memory of a forward pass, and the memory that is available."""

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kpac import memory
from kpac.cpu import on_meta
from kpac.models.interface import ImageNetwork


def peak_bytes(model: ImageNetwork, height: int, width: int, dtype: torch.dtype = torch.float32) -> int | None:
    """Peak number of bytes of all tensors during a pass over one image, including the image itself.

    Counted on meta tensors (`kpac.cpu.on_meta`), in negligible time and memory for any image size. Does not include the
    workspaces of libraries, or rows that are computed in bands.

    Args:
        model: a registered network; it is not changed.
        height, width: size of the image, in pixels.
        dtype: number format in which the network computes.

    Returns:
        The number of bytes; None for a network that cannot run on meta tensors.
    """
    ghost, shape = on_meta(model, dtype), (1, 3 * len(model.views), height, width)
    with torch.no_grad(), LiveBytes() as live:
        dtype = next((parameter.dtype for parameter in ghost.parameters()), dtype)
        views = torch.empty(shape, dtype=dtype, device="meta", memory_format=torch.channels_last)
        try:
            ghost(views)
        except (RuntimeError, NotImplementedError):
            return None
    return live.peak


def available_bytes(device: torch.device) -> int:
    """Bytes available now: on the device, or in the machine's memory within the limits of a container."""
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    return memory.available_bytes()


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all live tensors that operations create inside the context."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._follow(tensor.untyped_storage())
        return result

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key, storage.nbytes())

    def _forget(self, key: int, count: int) -> None:
        self._known.discard(key)
        self.live -= count
