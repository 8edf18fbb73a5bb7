"""Exact tiling of KPACNet: the same result as in one pass, up to rounding, at bounded memory.

Overlapping tiles alone are not exact, because shape attention averages each block's input over the whole image. So the
pass runs in stages, each over all tiles: the encoder, then one block after the other, then fusion and decoder. The
whole input of a block is in memory, so its mean is known before the block runs; the input takes 24 bytes per pixel in
the paper's 2-level network. Everything else is in memory only for a part of the image: the last block's output for the
band of rows that is being decoded, and features of higher resolution for one tile. The encoder's skips are computed a
second time for the decoder.

Each stage reads a halo around its tile; `kpac.models.reach` computes its size from the layers. Tiles end at the image's
border, so every layer pads there as it does in one pass.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from kpac.cpu import hand_back_freed
from kpac.models.interface import ImageNetwork
from kpac.models.kpac import KPACBlock, ShapeAttention, local_mean
from kpac.models.reach import Span, block_reads, decoder_reads, encoder_reads
from kpac.restore.progress import Progress, counted
from kpac.restore.rectangles import Area, Features

# A block needs about as much memory for one position as the decoder for four pixels, at any number of levels. Blocks
# have the widest halo: with tiles of 256 positions, a block computes 1.3 times the positions of the image; with tiles
# of 128, as in the decoder, 1.7 times.
BLOCK_TILE = 1 / 2  # side of a block's tile in positions, per pixel of the decoder's tile


def restore_in_tiles(
    network: ImageNetwork, views: Sequence[Tensor], tile: int, device: torch.device, progress: Progress = False
) -> Tensor:
    """Restores an image in tiles; the output is not clamped.

    Args:
        network: a KPACNet, on `device`.
        views: one tensor (1, 3, H, W) in [0, 1] per view, on any device.
        tile: side of the decoder's tiles in pixels, without the halo; smaller tiles need less memory and more time.
        device: device to compute on; features between two stages stay there.
        progress: see `kpac.restore.progress`.

    Returns:
        (1, 3, H, W) float32 on the CPU, in channels-last order.
    """
    tiled = _TiledPass(network, views, tile, device)
    stages = 2 + len(network.blocks)
    bar_format = "{l_bar}{bar}| {elapsed}<{remaining}"
    with counted(stages * tiled.whole.size, progress, bar_format=bar_format) as done:
        return tiled.run(done)


def kept_values(network: ImageNetwork, height: int, width: int, tile: int) -> int:
    """Peak number of feature values kept in memory between stages, for sizes in pixels; it is reached at the end."""
    rows, columns = -(-height // network.multiple), -(-width // network.multiple)
    halo = decoder_reads(network, Span(0, network.multiple - 1))[0]
    band = min(rows, int(tile * BLOCK_TILE) + halo.last - halo.first)
    blocks = len(network.blocks)
    channels = network.fusion[0].in_channels // (blocks + 1)  # of the deepest features, and of every block's output
    return channels * columns * (rows * max(1, blocks) + (band if blocks else 0))


class _TiledPass:
    """One tiled pass over one image; `whole` and all areas are in positions of the deepest features."""

    def __init__(self, network: ImageNetwork, views: Sequence[Tensor], tile: int, device: torch.device):
        self.network, self.views, self.device = network, views, device
        self.scale = network.multiple
        self.height, self.width = views[0].shape[-2:]
        self.whole = Area(0, -(-self.height // self.scale), 0, -(-self.width // self.scale))
        self.side = max(1, tile // self.scale)
        self.block_side = max(1, int(tile * BLOCK_TILE))

    def run(self, done: Callable[[int], object]) -> Tensor:
        """Runs all stages; calls `done` with the number of newly finished positions."""
        encoder_halo = encoder_reads(self.network, Span(0, 0)).in_blocks(self.scale)
        chain = [self.gather(self.encode, self.whole, encoder_halo, self.side, done)]
        *inner, last = [*self.network.blocks] or [None]
        for block in inner:
            compute = self.block_on_area(block, chain[-1])
            chain.append(self.gather(compute, self.whole, block_reads(block, Span(0, 0)), self.block_side, done))
        compute_last = self.block_on_area(last, chain[-1]) if last is not None else None

        deep, pixels = decoder_reads(self.network, Span(0, self.scale - 1))
        halo = deep | pixels.in_blocks(self.scale)
        restored = torch.empty((1, 3, self.height, self.width), memory_format=torch.channels_last)
        for band in self.whole.tiles(self.block_side, self.whole.right):
            band_chain = chain
            if last is not None and compute_last is not None:
                extent = band.grown(halo, self.whole)
                given = self.gather(
                    compute_last, extent, block_reads(last, Span(0, 0)), self.block_side, lambda _: None
                )
                band_chain = [*chain, given]
            for area in band.tiles(self.side, self.side):
                grown = area.grown(halo, self.whole)
                target = area.of(restored, self.scale)
                part = area.within(grown).of(self.decode(grown, band_chain), self.scale)
                target.copy_(part[..., : target.shape[-2], : target.shape[-1]])
                del part
                self.hand_back_freed()
                done(area.size if compute_last is None else 2 * area.size)
        return restored

    def gather(
        self, compute: Callable[[Area], Tensor], extent: Area, halo: Span, side: int, done: Callable[[int], object]
    ) -> Features:
        """Computes a stage's output for a whole area, tile by tile."""
        features: Features | None = None
        for area in extent.tiles(side, side):
            grown = area.grown(halo, self.whole)
            part = area.within(grown).of(compute(grown))
            if features is None:
                size = (1, part.shape[1], extent.bottom - extent.top, extent.right - extent.left)
                values = torch.empty(size, dtype=part.dtype, device=part.device, memory_format=torch.channels_last)
                features = Features(extent, values)
            features.of(area).copy_(part)
            del part
            self.hand_back_freed()
            done(area.size)
        assert features is not None  # every area has at least one tile
        return features

    def hand_back_freed(self) -> None:
        """Returns freed memory to the system on a CPU; does nothing on a GPU, whose tensors are not from malloc."""
        if self.device.type == "cpu":
            hand_back_freed()

    def read(self, area: Area) -> Tensor:
        """Reads the views of an area, in [-1, 1], padded at the image's border."""
        pixels = torch.cat([area.of(view, self.scale).to(self.device) for view in self.views], dim=1)
        return self.network.prepare(pixels).contiguous(memory_format=torch.channels_last)

    def encode(self, area: Area) -> Tensor:
        """Computes the deepest features of an area."""
        return self.network.deepest(self.network.encoder_input(self.read(area)))

    def decode(self, area: Area, chain: Sequence[Features]) -> Tensor:
        """Computes the restored pixels of an area."""
        views = self.read(area)
        parts = [features.of(area) for features in chain]
        residual = self.network.complete(self.network.encoder_input(views), parts)
        return (views[:, :3] + residual + 1) / 2

    def block_on_area(self, block: nn.Module, x: Features) -> Callable[[Area], Tensor]:
        """Function that applies a block to an area of its input, with shape attention from the whole input."""
        attention = block.shape_attention if isinstance(block, KPACBlock) else None
        if attention is None:
            return lambda area: block(x.of(area))
        if attention.window is None:
            # One channel at a time, because PyTorch makes a float64 copy of the averaged tensor.
            mean = torch.stack([channel.mean(dtype=torch.float64) for channel in x.values[0]]).to(x.values.dtype)
            shape = attention.from_mean(mean[None, :, None, None])
            return lambda area: block(x.of(area), shape)
        return lambda area: block(x.of(area), _local_shape(attention, x, area))


def _local_shape(attention: ShapeAttention, x: Features, area: Area) -> Tensor:
    """Windowed shape attention for the positions of an area; reads only the windows around them."""
    assert attention.window is not None
    (top, bottom), (left, right) = (
        (_window_start(first, size, side), _window_start(last - 1, size, side) + min(side, size))
        for first, last, size, side in (
            (area.top, area.bottom, x.area.bottom, attention.window[0]),
            (area.left, area.right, x.area.right, attention.window[1]),
        )
    )
    windows = Area(top, bottom, left, right)
    mean = local_mean(x.of(windows), attention.window).expand(-1, -1, bottom - top, right - left)
    return attention.from_mean(area.within(windows).of(mean))


def _window_start(position: int, size: int, side: int) -> int:
    """First row or column of the window around a position, shifted to lie inside the features, as in `local_mean`."""
    side = min(side, size)
    return min(max(0, position - (side - 1) // 2), size - side)
