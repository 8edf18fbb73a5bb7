"""KPACNet over an image in tiles: the same result as in one pass, up to rounding, at bounded memory.

Overlap alone cannot give that, because shape attention averages each block's input over the whole image. So the pass
goes in stages, each over all tiles: the encoder, one stage a block, and fusion with decoder. Between stages the
features of the chain lie in memory as a whole: they are at the lowest resolution, 24 bytes a pixel and block in the
paper's 2-level network. Their mean is known before the next block runs. Everything at higher resolution exists for one
tile at a time; the skips are computed a second time for the decoder.

Each stage reads a halo around its tile, of the size that `kpac.models.reach` computes from the layers. Where the image
ends, the tile ends, too, so that every layer pads there as it does in one pass.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from kpac.models.kpac import KPACBlock, local_mean
from kpac.models.layers import pad_to_multiple
from kpac.models.network import KPACNet
from kpac.models.reach import Span, decoder_reads, encoder_reads, reads

BLOCK_SHARE = 2  # a block's tile has this part of the tile's side in positions: 1/4 of the area, about the same memory


@dataclass(frozen=True)
class Area:
    """Rows `top` to `bottom` and columns `left` to `right`, the ends excluded, in positions of the deepest features."""

    top: int
    bottom: int
    left: int
    right: int

    def grown(self, halo: Span, whole: "Area") -> "Area":
        """With a halo around it, as far as the image goes; `halo` is the span around position 0."""
        return Area(
            max(whole.top, self.top + halo.first),
            min(whole.bottom, self.bottom + halo.last),
            max(whole.left, self.left + halo.first),
            min(whole.right, self.right + halo.last),
        )

    def within(self, outer: "Area") -> "Area":
        """The same place, counted from the corner of `outer`."""
        return Area(self.top - outer.top, self.bottom - outer.top, self.left - outer.left, self.right - outer.left)

    def of(self, x: Tensor, scale: int = 1) -> Tensor:
        """A view of this part of (N, C, H, W); `scale` is the number of rows of `x` a position."""
        return x[..., self.top * scale : self.bottom * scale, self.left * scale : self.right * scale]


def restore_in_tiles(
    network: KPACNet, views: Sequence[Tensor], tile: int, device: torch.device, progress: bool = False
) -> Tensor:
    """What `network` gives for the views, not clamped.

    Args:
        network: on `device`.
        views: one tensor (1, 3, H, W) in [0, 1] a view, anywhere.
        tile: side of the decoder's tiles in pixels, without the halo; smaller ones use less memory and take longer.
        device: where to compute; the features between two stages stay there.
        progress: shows a bar on a terminal.

    Returns:
        (1, 3, H, W) float32 on the CPU, in channels-last order.
    """
    scale = network.multiple
    height, width = views[0].shape[-2:]
    whole = Area(0, -(-height // scale), 0, -(-width // scale))

    def read(area: Area) -> Tensor:
        pixels = torch.cat([area.of(view, scale).to(device) for view in views], dim=1)
        return pad_to_multiple(pixels, scale) * 2 - 1  # at the image's end; elsewhere the size is a multiple

    def encoder_input(x: Tensor) -> Tensor:
        return x[:, 3:] if len(views) > 1 else x

    def encode(area: Area) -> Tensor:
        return network.encode(encoder_input(read(area)))[-1]

    def decode(area: Area) -> Tensor:
        x = read(area)
        skips = []
        features = encoder_input(x)
        for stage in network.encoder[:-1]:
            features = stage(features)
            skips.append(features)
        del features
        return (x[:, :3] + network.decode([area.of(features) for features in chain], skips) + 1) / 2

    side = max(1, tile // scale)
    block_side = max(1, tile // BLOCK_SHARE)
    stages = _count(whole, side) * 2 + _count(whole, block_side) * len(network.blocks)
    with tqdm(total=stages, unit="tile", leave=False, disable=None if progress else True) as bar:

        def sweep(compute: Callable[[Area], Tensor], halo: Span, side: int) -> Iterator[tuple[Area, Tensor]]:
            for area in divide(whole, side):
                grown = area.grown(halo, whole)
                yield area, area.within(grown).of(compute(grown), scale if compute is decode else 1)
                bar.update()

        chain = [_gather(sweep(encode, encoder_reads(network, Span(0, 0)).blocks_of(scale), side), whole)]
        for block in network.blocks:
            compute = _block_over_tiles(block, chain[-1], whole)
            chain.append(_gather(sweep(compute, reads(block, Span(0, 0)), block_side), whole))
        deep, pixels = decoder_reads(network, Span(0, scale - 1))
        restored = torch.empty((1, 3, height, width), memory_format=torch.channels_last)
        for area, part in sweep(decode, deep | pixels.blocks_of(scale), side):
            target = area.of(restored, scale)
            target.copy_(part[..., : target.shape[-2], : target.shape[-1]])
    return restored


def divide(whole: Area, side: int) -> Iterator[Area]:
    """Tiles of about equal size, no side above `side`."""
    rows, columns = _cuts(whole.bottom, side), _cuts(whole.right, side)
    for top, bottom in zip(rows, rows[1:], strict=False):
        for left, right in zip(columns, columns[1:], strict=False):
            yield Area(top, bottom, left, right)


def _cuts(size: int, side: int) -> list[int]:
    count = -(-size // side)
    return [size * index // count for index in range(count + 1)]


def _count(whole: Area, side: int) -> int:
    return -(-whole.bottom // side) * -(-whole.right // side)


def _gather(parts: Iterator[tuple[Area, Tensor]], whole: Area) -> Tensor:
    """The parts of a stage as one tensor."""
    features = None
    for area, part in parts:
        if features is None:
            features = part.new_empty((*part.shape[:2], whole.bottom, whole.right))
        area.of(features).copy_(part)
    return features


def _block_over_tiles(block: torch.nn.Module, x: Tensor, whole: Area) -> Callable[[Area], Tensor]:
    """The block on a part of its input, with shape attention over all of it."""
    attention = block.shape_attention if isinstance(block, KPACBlock) else None
    if attention is None:
        return lambda area: block(area.of(x))
    if attention.window is None:
        # Channel by channel, because PyTorch makes a float64 copy of what it averages.
        mean = torch.stack([channel.mean(dtype=torch.float64) for channel in x[0]]).to(x.dtype)
        shape = attention.from_mean(mean[None, :, None, None])
        return lambda area: block(area.of(x), shape)
    return lambda area: block(area.of(x), attention.from_mean(_mean_around(x, area, whole, attention.window)))


def _mean_around(x: Tensor, area: Area, whole: Area, window: tuple[int, int]) -> Tensor:
    """`local_mean` of all of `x`, for the positions of `area` alone: the windows around them and no more are read."""
    (top, bottom), (left, right) = (
        (_window_start(first, size, side), _window_start(last - 1, size, side) + min(side, size))
        for first, last, size, side in (
            (area.top, area.bottom, whole.bottom, window[0]),
            (area.left, area.right, whole.right, window[1]),
        )
    )
    windows = Area(top, bottom, left, right)
    mean = local_mean(windows.of(x), window).expand(-1, -1, bottom - top, right - left)
    return area.within(windows).of(mean)


def _window_start(position: int, size: int, side: int) -> int:
    """Where the window of a position begins: around it, moved to lie within the features."""
    side = min(side, size)
    return min(max(0, position - (side - 1) // 2), size - side)
