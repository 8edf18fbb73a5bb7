"""Conditions under which this package's loops can replace PyTorch's layers."""

import torch
from torch import Tensor

from kpac.cpu.instructions import multiplies_bfloat16


def is_plain(x: Tensor) -> bool:
    """Whether `x` is an ordinary float32 tensor on a CPU, outside autocast, tracing, compiling and exporting."""
    return _is_cpu_tensor(x) and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


def fits(x: Tensor, channels: int, *parameters: Tensor | None) -> bool:
    """Whether loops over raw addresses, which check nothing themselves, can compute a layer.

    Args:
        x: the layer's input; must be plain, (N, channels, H, W), with more than one row and column.
        channels: number of input channels of the layer.
        parameters: parameters of the layer; must be float32 on a CPU.
    """
    if not is_plain(x):  # must come first: during an export, every check of a size becomes a guard on it
        return False
    shaped = x.dim() == 4 and x.shape[1] == channels and x.numel() > 0 and min(x.shape[2:]) > 1
    return shaped and all(parameter is not None and is_float_on_cpu(parameter) for parameter in parameters)


def number_format(x: Tensor) -> torch.dtype | None:
    """The dtype to compute a whole network or block in: float32, or bfloat16 under autocast; None if neither.

    bfloat16 needs native instructions of the processor; without them it would save nothing.
    """
    if is_plain(x):
        return torch.float32
    if not _is_cpu_tensor(x) or not torch.is_autocast_enabled("cpu"):
        return None
    lower = torch.get_autocast_dtype("cpu")
    known = x.dtype in (torch.float32, torch.bfloat16)
    return lower if known and lower == torch.bfloat16 and has_bfloat16() else None


def has_bfloat16() -> bool:
    """Whether the processor has instructions for bfloat16, and both PyTorch and `vectors` use them."""
    known = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return known and multiplies_bfloat16()


def is_float_on_cpu(x: Tensor) -> bool:
    """Whether `x` is float32 on a CPU."""
    return x.device.type == "cpu" and x.dtype == torch.float32


def _is_cpu_tensor(x: Tensor) -> bool:
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or type(x) is not Tensor:
        return False
    return x.device.type == "cpu" and not x.is_neg()
