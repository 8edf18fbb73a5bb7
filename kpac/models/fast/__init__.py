"""The same network, faster on a CPU.

Nobody needs this folder to understand KPAC: `kpac.models.kpac` and `kpac.models.network` say what is computed, and the
tests hold this folder to them, in values and in gradients. docs/benchmarks.md has what each idea gains, and what was
dropped. From the one that says most about the method to the one that says least:

- `shared_kernel`: the five dilated convolutions of a block share their products.
- `winograd`: convolutions with a fraction of the multiplications, by what `filtering` derives and `tiles` does.
- `few_outputs`: the last convolution fills the processor's vector units.
- `bands`: without gradients, the whole network a few rows at a time (`banded`), in float32 or bfloat16.

Below them, `vectors` has matrix products and sums on whole vector registers, `compiled` makes machine code of loops,
`parallel` gives each thread pieces of its own, and `allocator` keeps memory that was used.
"""

import torch
from torch import Tensor

from kpac.models.fast.instructions import multiplies_bfloat16


def is_plain(x: Tensor) -> bool:
    """float32 on a CPU, for this moment: no autocast, no tracing, compiling or exporting."""
    return _on_cpu(x) and not torch.is_autocast_enabled("cpu")


def fits(x: Tensor, channels: int, *parameters: Tensor) -> bool:
    """Whether loops that take addresses may compute a layer: all is plain, of the shapes that they rely on.

    Where it does not, PyTorch's own layers compute, or refuse.

    Args:
        x: should be (N, channels, H, W), with more than one row and column.
        parameters: of the layer.
    """
    if not is_plain(x):  # asked first: in an export, each question about sizes becomes a condition on them
        return False
    shaped = x.dim() == 4 and x.shape[1] == channels and x.numel() > 0 and min(x.shape[2:]) > 1
    return shaped and all(_is_float_on_cpu(parameter) for parameter in parameters)


def number_format(x: Tensor) -> torch.dtype | None:
    """What layers on the way of such an input compute in, float32 or, under autocast, bfloat16; None for anything else.

    Without the processor's own instructions for bfloat16 there is nothing to gain.
    """
    if not _on_cpu(x) or not torch.is_autocast_enabled("cpu"):
        return torch.float32 if is_plain(x) else None
    lower = torch.get_autocast_dtype("cpu")
    return lower if lower == torch.bfloat16 and has_bfloat16() else None


def has_bfloat16() -> bool:
    """Whether the processor has instructions for bfloat16, and both PyTorch and `vectors` use them."""
    known = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return known and multiplies_bfloat16()


def _on_cpu(x: Tensor) -> bool:
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or type(x) is not Tensor:
        return False
    return _is_float_on_cpu(x) and not x.is_neg()


def _is_float_on_cpu(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32
