"""Approximate tiling for any network: overlapping tiles, blended. The result differs from that of one pass."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kpac.models.interface import ImageNetwork
from kpac.models.reach import Span
from kpac.restore.progress import Progress, counted
from kpac.restore.rectangles import Area

OVERLAP = 32  # pixels added on each side of a tile; the blending ramp, centred on the border, is half as wide


def restore_approximately(
    model: ImageNetwork, views: Sequence[Tensor], tile: int, device: torch.device, progress: Progress = False
) -> Tensor:
    """Restores an image tile by tile, and blends adjacent tiles.

    Every tile is restored as a separate image. The result differs from that of one pass if the network's receptive
    field exceeds the overlap, or if it averages over the whole image, as KPAC's shape attention does.

    Args:
        model: any registered network, on `device`.
        views: one tensor (1, 3, H, W) in [0, 1] per view, on any device.
        tile: side of the tiles in pixels, without the overlap.
        device: device to compute on.
        progress: see `kpac.restore.progress`.

    Returns:
        (1, 3, H, W) float32 on the CPU, in channels-last order.
    """
    height, width = views[0].shape[-2:]
    whole = Area(0, height, 0, width)
    restored = torch.zeros((1, 3, height, width)).to(memory_format=torch.channels_last)
    weights = torch.zeros((1, 1, height, width))
    tiles = list(whole.tiles(tile, tile))
    with counted(len(tiles), progress, unit="tile") as done:
        for area in tiles:
            grown = area.grown(Span(-OVERLAP, OVERLAP), whole)
            output = model(torch.cat([grown.of(view).to(device) for view in views], dim=1)).float().cpu()
            inner = area.within(grown)
            rows = _fade(inner.top, inner.bottom, output.shape[-2])
            weight = rows[:, None] * _fade(inner.left, inner.right, output.shape[-1])
            grown.of(restored).add_(output * weight)
            grown.of(weights).add_(weight)
            done(1)
    return restored / weights


def _fade(first: int, last: int, size: int) -> Tensor:
    """Blending weights along one axis: 1 inside the tile, falling to 0 within half of the overlap around its border.

    The weights of the two tiles at a border are equal on the border, and sum to 1 everywhere.
    """
    position = torch.arange(size) + 0.5
    ramp = OVERLAP / 2
    before = ((position - first) / ramp + 0.5) if first else torch.ones(size)
    after = ((last - position) / ramp + 0.5) if last < size else torch.ones(size)
    return torch.minimum(before, after).clamp(0, 1)
