"""Receptive fields: the input positions from which given outputs are computed, along one axis.

Traces the network's own `forward` (`torch.fx`) and follows its operations from the output back to the input, so that
the network's structure is not repeated here. Positions count from 0 and may lie outside of the features, where a layer
reads its padding. Shape attention is left out: it reads everything.
"""

import inspect
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from kpac.models.interface import ImageNetwork
from kpac.models.kpac import ShapeAttention


@dataclass(frozen=True)
class Span:
    """Positions `first` to `last`, both included."""

    first: int
    last: int

    def __or__(self, other: "Span") -> "Span":
        return Span(min(self.first, other.first), max(self.last, other.last))

    def in_blocks(self, size: int) -> "Span":
        """Indices of the blocks of `size` positions that contain this span."""
        return Span(self.first // size, self.last // size)


def reads(module: nn.Module, outputs: Span, compute: Callable[..., Tensor] | None = None) -> tuple[Span, ...]:
    """The positions of each input from which `outputs` are computed.

    Args:
        module: a layer, block or network whose computation does not depend on the input's size.
        outputs: positions of the output.
        compute: the part of the module to trace, with one or two inputs, such as its method `residual`; by default
            its `forward`.

    Returns:
        One span per input of `compute`, in the order of the inputs.

    Raises:
        TypeError: an operation that this module does not know.
    """
    compute = compute or module.forward
    required = [p for p in inspect.signature(compute).parameters.values() if p.default is p.empty]
    root = (_OneInput if len(required) == 1 else _TwoInputs)(module, compute)
    graph = _Tracer(param_shapes_constant=True).trace(root)
    spans: dict[fx.Node, Span] = {}
    for node in reversed(graph.nodes):
        if node.op == "output":
            (result,) = node.all_input_nodes
            spans[result] = outputs
        elif node in spans and node.op.startswith("call"):
            read = _reads(node, spans[node], root)
            if read is None:
                continue
            for argument in node.all_input_nodes:
                spans[argument] = spans[argument] | read if argument in spans else read
    return tuple(spans[node] for node in graph.nodes if node.op == "placeholder" and node in spans)


def encoder_reads(network: ImageNetwork, outputs: Span) -> Span:
    """The pixels from which a KPACNet's encoder computes positions of its deepest features."""
    return reads(network, outputs, network.deepest)[0]


def block_reads(block: nn.Module, outputs: Span) -> Span:
    """The positions of its input from which a block of a KPACNet computes positions of its output."""
    return reads(block, outputs)[0]


def decoder_reads(network: ImageNetwork, outputs: Span) -> tuple[Span, Span]:
    """Positions from which the fusion and the decoder of a KPACNet compute pixels of the residual.

    Returns:
        Positions of the chain's features, and the pixels from which the encoder's skips are computed.
    """
    length = len(network.blocks) + 1
    features, pixels = reads(network, outputs, lambda features, x: network.complete(x, [features] * length))
    return features, pixels


class _Traced(nn.Module):
    """Module for the tracer: its `forward` names the inputs, and its child module holds the parameters."""

    def __init__(self, module: nn.Module, compute: Callable[..., Tensor]):
        super().__init__()
        self.module, self.compute = module, compute


class _OneInput(_Traced):
    def forward(self, x: Tensor) -> Tensor:
        return self.compute(x)


class _TwoInputs(_Traced):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.compute(x, y)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, ShapeAttention)


def _reads(node: fx.Node, outputs: Span, root: nn.Module) -> Span | None:
    """Positions of each input that one operation reads; None for shape attention, which is left out."""
    if node.op == "call_module":  # shape attention
        return None
    name = getattr(node.target, "__name__", str(node.target))
    arguments: tuple[Any, ...] = node.args
    if node.target in _EACH_POSITION or (node.target is operator.getitem and _takes_every_row(arguments[1])):
        return outputs
    if node.target is F.pad:
        above = arguments[1][2] if len(arguments[1]) > 2 else 0
        return Span(outputs.first - above, outputs.last - above)
    if node.target in (torch.conv2d, torch.conv_transpose2d):
        given = _arguments(node)
        taps = given["dilation"] * (root.get_parameter(str(given["weight"].target)).shape[2] - 1)
        stride, padding = given["stride"], given["padding"]
        if node.target is torch.conv2d:
            return Span(stride * outputs.first - padding, stride * outputs.last - padding + taps)
        # Input i contributes to outputs stride * i - padding to stride * i - padding + taps.
        return Span(-((taps - padding - outputs.first) // stride), (outputs.last + padding) // stride)
    raise TypeError(f"the reach of {name} is not known; add it to {__name__}")


_EACH_POSITION = {F.leaky_relu, torch.sigmoid, torch.cat, torch.add, torch.mul, operator.add, operator.mul}

_ARGUMENTS: dict[Any, tuple[str, ...]] = {  # in the order of PyTorch's signatures
    torch.conv2d: ("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
    torch.conv_transpose2d: ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation"),
}


def _arguments(node: fx.Node) -> dict[str, Any]:
    """A convolution's arguments by name; pairs (rows, columns) are replaced by the number for rows."""
    given: dict[str, Any] = {"stride": 1, "padding": 0, "dilation": 1}
    given |= dict(zip(_ARGUMENTS[node.target], node.args, strict=False))
    given |= node.kwargs
    return {name: value[0] if isinstance(value, tuple | list) else value for name, value in given.items()}


def _takes_every_row(index: Any) -> bool:
    return isinstance(index, tuple) and len(index) < 3 and all(isinstance(part, slice) for part in index)
