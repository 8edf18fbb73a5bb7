"""Convolutions with the paper's activation and the published graph's padding."""

import torch.nn.functional as F
from torch import Tensor, nn

LEAKY_SLOPE = 0.2


def activation(x: Tensor) -> Tensor:
    """Leaky ReLU with slope 0.2, in place: `x` must be a fresh tensor, such as the output of a convolution."""
    return F.leaky_relu(x, LEAKY_SLOPE, inplace=True)


class Conv(nn.Conv2d):
    """Stride-1 convolution, zero padding that keeps the size, leaky ReLU.

    Shape: (N, in_channels, H, W) -> (N, out_channels, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, dilation: int = 1):
        padding = dilation * (kernel_size // 2)
        super().__init__(in_channels, out_channels, kernel_size, padding=padding, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        return activation(super().forward(x))


class DownConv(nn.Conv2d):
    """3x3 convolution with stride 2, leaky ReLU; halves an even size.

    Pads one row of zeros at the bottom and one column at the right, as TensorFlow's "SAME" padding does. With PyTorch's
    symmetric padding of 1, the same kernel would see a grid shifted by one pixel.

    Shape: (N, in_channels, H, W) -> (N, out_channels, H / 2, W / 2), H and W even.
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, kernel_size=3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return activation(super().forward(F.pad(x, (0, 1, 0, 1))))


class UpConv(nn.ConvTranspose2d):
    """4x4 transposed convolution with stride 2, leaky ReLU; doubles the size.

    Shape: (N, in_channels, H, W) -> (N, out_channels, 2H, 2W).
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__(in_channels, out_channels, kernel_size=4, stride=2, padding=1)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        return activation(super().forward(x, output_size))


class ResidualConv(nn.Conv2d):
    """The network's last layer: a 5x5 convolution to three colors, without an activation.

    Args:
        in_channels: channels of the input.

    Shape: (N, in_channels, H, W) -> (N, 3, H, W).
    """

    def __init__(self, in_channels: int):
        super().__init__(in_channels, 3, kernel_size=5, padding=2)


def pad_to_multiple(image: Tensor, multiple: int) -> Tensor:
    """Pads an image at the bottom and the right until height and width are multiples of `multiple`.

    Pads by reflection (without repeating the border); where the image is too small for that, by repeating its last row
    or column. An image of a fitting size is returned unchanged.

    Shape: (N, C, H, W) -> (N, C, H', W').
    """
    height, width = image.shape[-2:]
    bottom, right = -height % multiple, -width % multiple
    for size, amount, sides in ((width, right, (0, right, 0, 0)), (height, bottom, (0, 0, 0, bottom))):
        if amount:
            image = F.pad(image, sides, mode="reflect" if amount < size else "replicate")
    return image
