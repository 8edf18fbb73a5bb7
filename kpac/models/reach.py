"""How far the layers of KPACNet look: which positions of its input an output is computed from, along one axis.

Everything follows from the modules' kernel sizes, dilations, strides and paddings. Positions count from 0 and may lie
outside of the features, where a layer reads its padding.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from kpac.models.kpac import KPACBlock, ScaleAttention
from kpac.models.network import KPACNet


@dataclass(frozen=True)
class Span:
    """Positions `first` to `last`, both included."""

    first: int
    last: int

    def __or__(self, other: "Span") -> "Span":
        return Span(min(self.first, other.first), max(self.last, other.last))

    def in_blocks(self, size: int) -> "Span":
        """The blocks of `size` positions that these lie in."""
        return Span(self.first // size, self.last // size)


def reads(module: nn.Module | Iterable[nn.Module], outputs: Span) -> Span:
    """The input positions from which a layer, or a sequence of layers, computes `outputs`.

    Raises:
        TypeError: a layer whose reach is not known here.
    """
    if isinstance(module, KPACBlock):
        return _block_reads(module, outputs)
    if isinstance(module, ScaleAttention):
        return reads([*module.features, module.weigh], outputs)
    if isinstance(module, nn.Conv2d):
        stride, padding, taps = module.stride[0], module.padding[0], module.dilation[0] * (module.kernel_size[0] - 1)
        return Span(stride * outputs.first - padding, stride * outputs.last - padding + taps)
    if isinstance(module, nn.ConvTranspose2d):
        # Input i reaches the outputs stride * i - padding and the kernel's other taps after it.
        stride, padding, taps = module.stride[0], module.padding[0], module.dilation[0] * (module.kernel_size[0] - 1)
        return Span(-((taps - padding - outputs.first) // stride), (outputs.last + padding) // stride)
    if isinstance(module, nn.Module) and not isinstance(module, nn.Sequential):
        raise TypeError(f"the reach of {type(module).__name__} is not known; add it to {__name__}")
    for layer in reversed(list(module)):
        outputs = reads(layer, outputs)
    return outputs


def encoder_reads(network: KPACNet, outputs: Span) -> Span:
    """The pixels from which the encoder computes positions of its deepest features."""
    return reads([layer for stage in network.encoder for layer in stage], outputs)


def decoder_reads(network: KPACNet, outputs: Span) -> tuple[Span, Span]:
    """What fusion and decoder compute pixels of the residual from.

    Returns:
        Positions of the chain's features, and the pixels that the encoder's skips are computed from.
    """
    pixels = outputs
    for level, stage in enumerate(reversed(network.decoder)):
        outputs = reads(stage.merge, outputs)
        pixels = pixels | reads([layer for stage in network.encoder[: level + 1] for layer in stage], outputs)
        outputs = reads(stage.up, outputs)
    return reads(network.fusion, outputs), pixels


def _block_reads(block: KPACBlock, outputs: Span) -> Span:
    """Shape attention aside, which reads everything."""
    outputs = reads(block.fusion, outputs)
    reach = max(block.dilations) * (block.kernels[0].shape[-1] // 2)
    branches = Span(outputs.first - reach, outputs.last + reach)
    return branches | reads(block.scale_attention, outputs) if block.scale_attention is not None else branches
