"""3x3 convolutions of many channels with a quarter of the multiplications: `layers.Conv` says what is computed.

F(4x4, 3x3) of Lavin and Gray (arXiv 1509.09308) computes 4x4 neighbouring outputs from 6x6 inputs. Both are transformed
along rows and columns, and what were 144 multiplications for each pair of channels are 36. The transforms are products
with small matrices here, which PyTorch computes at the speed of memory. It rounds about as the convolution itself does.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = 192  # with fewer, the transforms take the time that is saved
# A polynomial's values at 0, 1, -1, 2, -2 and infinity; in the paper's terms B^T, G and A^T.
INPUT = ((4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0),
         (0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0), (0, 4, 0, -5, 0, 1))  # fmt: skip
KERNEL = ((1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6),
          (1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1))  # fmt: skip
OUTPUT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))


def suits(layer: nn.Conv2d) -> bool:
    """Whether `Convolution` may stand in for the layer, and takes less time."""
    ordinary = layer.kernel_size == (3, 3) and layer.stride == layer.dilation == (1, 1)
    return ordinary and layer.in_channels >= CHANNELS


class Convolution:
    """A layer and its activation, for one band of rows after the other.

    Args:
        layer: one that `suits`.
        slope: of the leaky ReLU.
    """

    def __init__(self, layer: nn.Conv2d, slope: float):
        points = torch.tensor(KERNEL, dtype=torch.float64)
        kernel = torch.einsum("ik,fckl,jl->jicf", points, layer.weight.double(), points)
        self.kernel = kernel.flatten(0, 1).to(layer.weight.dtype).contiguous()  # (36, in_channels, out_channels)
        self.bias, self.slope = layer.bias, slope
        self.input, self.output = (layer.weight.new_tensor(matrix) for matrix in (INPUT, OUTPUT))
        self.rooms: dict[str, Tensor] = {}

    def __call__(self, rows: Tensor) -> Tensor:
        """Rows with one more above and below, (rows + 2, W, in_channels) -> (rows, W, out_channels)."""
        height, width = len(rows) - 2, rows.shape[1]
        down, across = -(-height // 4), -(-width // 4)
        if height % 4 or width % 4:
            rows = F.pad(rows, (0, 0, 0, 4 * across - width, 0, 4 * down - height))
        tiles = self._transform(rows.contiguous(), down, across)
        products = self._room("products", len(self.kernel), down * across, self.kernel.shape[2])
        torch.bmm(tiles, self.kernel, out=products)
        return self._outputs(products, down, across)[:height, :width]

    def _transform(self, rows: Tensor, down: int, across: int) -> Tensor:
        """Overlapping tiles of 6x6, their columns transformed and then their rows.

        Shape: (4 * down + 2, 4 * across, C) -> (36, down * across, C).
        """
        width, channels = rows.shape[1:]
        line = (width + 2) * channels  # with a column of zeros at both sides
        half = self._room("half", down, 6, line)
        half[..., :channels] = half[..., -channels:] = 0
        columns = rows.as_strided((down, 6, width * channels), (4 * width * channels, width * channels, 1))
        torch.bmm(self.input.expand(down, 6, 6), columns, out=half[..., channels:-channels])
        lines = self._room("whole", 6, 6, down, across, channels)
        lines.copy_(half.as_strided(lines.shape, (channels, line, 6 * line, 4 * channels, 1)))
        tiles = self._room("tiles", len(self.kernel), down * across, channels)
        torch.mm(self.input, lines.view(6, -1), out=tiles.view(6, -1))
        return tiles

    def _outputs(self, products: Tensor, down: int, across: int) -> Tensor:
        """Tiles of 4x4 outputs, put side by side, and the activation.

        Shape: (36, down * across, C) -> (4 * down, 4 * across, C).
        """
        filters = products.shape[2]
        half = self._room("half", 4, 6, down * across * filters)
        torch.mm(self.output, products.view(6, -1), out=half.view(4, -1))
        tiles = self._room("whole", 4, 4, down * across * filters)
        torch.bmm(self.output.expand(4, 4, 6), half, out=tiles)  # (column, row, tile and channel)
        output = products.new_empty(down, 4, across, 4, filters)
        torch.add(tiles.view(4, 4, down, across, filters).permute(2, 1, 3, 0, 4), self.bias, out=output)
        return F.leaky_relu(output.view(4 * down, 4 * across, filters), self.slope, inplace=True)

    def _room(self, name: str, *shape: int) -> Tensor:
        """Memory of the band before, which is mapped already, as far as it goes."""
        values = math.prod(shape)
        if name not in self.rooms or self.rooms[name].numel() < values:
            self.rooms[name] = self.bias.new_empty(values)
        return self.rooms[name][:values].view(shape)
