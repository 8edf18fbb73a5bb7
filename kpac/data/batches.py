"""Batches of training crops: packed as integers for the transfer to the device, unpacked to floats there."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from kpac.data.dataset import Crop
from kpac.images import to_float

WHITE = {torch.uint8: 255.0, torch.uint16: 65535.0}


@dataclass(frozen=True)
class Batch:
    """One rank's share of a step's crops, on the device."""

    views: Tensor  # (n, 3V, crop, crop) float32 in [0, 1]
    target: Tensor  # (n, 3, crop, crop) float32 in [0, 1]
    start: int  # position of the step's first crop in the stream
    size: int  # number of crops of the step, over all ranks


@dataclass(frozen=True)
class PackedPixels:
    """Images of one size in compact form: the files' integers, unless an augmentation has computed new values.

    Integers take a half or a quarter of the bytes of float32.
    """

    parts: tuple[Tensor, ...]  # one tensor (k, H, W, C) for each type that occurs: uint8, uint16, or float32 in [0, 1]
    order: Tensor | None  # index of each image in the concatenated parts; None if there is one part

    @classmethod
    def pack(cls, images: Sequence[Sequence[np.ndarray]]) -> "PackedPixels":
        """Packs copies of images; each is a sequence of views (H, W, 3), which become its channels."""
        dtypes = [_common_dtype(views) for views in images]
        kinds = sorted(set(dtypes), key=str)
        parts = tuple(
            _stack([views for views, dtype in zip(images, dtypes, strict=True) if dtype == kind], kind)
            for kind in kinds
        )
        if len(kinds) == 1:
            return cls(parts, None)
        places = np.argsort([kinds.index(dtype) for dtype in dtypes], kind="stable")
        return cls(parts, torch.from_numpy(np.argsort(places, kind="stable")))

    def unpack(self, device: torch.device, memory_format: torch.memory_format) -> Tensor:
        """Returns the images as (n, C, H, W) float32 in [0, 1] on a device.

        The values are bit-identical to those of `kpac.images.to_float`: both divide. The divisor is a tensor on the
        device, because CUDA replaces division by a host number with multiplication by its reciprocal, which rounds
        differently.
        """
        floats = []
        for part in self.parts:
            values = part.to(device, non_blocking=True)
            if part.dtype in WHITE:
                values = values.float() / torch.full((), WHITE[part.dtype], device=device)
            floats.append(values)
        if self.order is None:
            images = floats[0]
        else:
            images = torch.cat(floats).index_select(0, self.order.to(device, non_blocking=True))
        return images.permute(0, 3, 1, 2).contiguous(memory_format=memory_format)

    def pin_memory(self) -> "PackedPixels":
        """Returns a copy in pinned memory."""
        order = None if self.order is None else self.order.pin_memory()
        return PackedPixels(tuple(part.pin_memory() for part in self.parts), order)

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts)


@dataclass(frozen=True)
class PackedBatch:
    """A `Batch` in compact form, for the transfer from a data worker to the device."""

    views: PackedPixels
    target: PackedPixels
    start: int
    size: int

    @classmethod
    def pack(cls, crops: Sequence[Crop], start: int, size: int) -> "PackedBatch":
        """Packs copies of crops; for `start` and `size` see `Batch`."""
        views, targets = ([crop.views for crop in crops], [[crop.target] for crop in crops])
        return cls(PackedPixels.pack(views), PackedPixels.pack(targets), start, size)

    def unpack(self, device: torch.device, memory_format: torch.memory_format = torch.contiguous_format) -> Batch:
        """Returns the batch as float32 on a device."""
        views, target = (pixels.unpack(device, memory_format) for pixels in (self.views, self.target))
        return Batch(views, target, self.start, self.size)

    def pin_memory(self) -> "PackedBatch":
        """Returns a copy in pinned memory; the data loader calls this."""
        return PackedBatch(self.views.pin_memory(), self.target.pin_memory(), self.start, self.size)

    @property
    def nbytes(self) -> int:
        return self.views.nbytes + self.target.nbytes


def _common_dtype(views: Sequence[np.ndarray]) -> np.dtype:
    dtypes = {view.dtype for view in views}
    return dtypes.pop() if len(dtypes) == 1 else np.dtype(np.float32)


def _stack(images: Sequence[Sequence[np.ndarray]], dtype: np.dtype) -> Tensor:
    """Stacks images as (n, H, W, C); a data worker does so in shared memory, to save the parent a copy."""
    height, width, _ = images[0][0].shape
    shape = (len(images), height, width, 3 * len(images[0]))
    stack = torch.empty(0, dtype=getattr(torch, str(dtype)))
    if get_worker_info():
        stack.set_(torch.UntypedStorage._new_shared(math.prod(shape) * stack.itemsize))
    stack.resize_(shape)
    target = stack.numpy()
    for index, views in enumerate(images):
        for view, pixels in enumerate(views):
            target[index, ..., 3 * view : 3 * view + 3] = pixels if pixels.dtype == dtype else to_float(pixels)
    return stack
