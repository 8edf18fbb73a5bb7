"""KPAC's networks, faster on a CPU, behind one call: `accelerate(model)`.

`kpac.models` says what is computed, in plain PyTorch, and knows nothing of this package; the tests hold the two
together, in values and in gradients. docs/benchmarks.md says what each idea gains, and what was tried and dropped.
From the idea that says most about the method to the one that says least:

- `shared_kernel`: the five dilated convolutions of a block share their products.
- `winograd`: convolutions with a fraction of the multiplications, by what `filtering` derives and `tiles` runs.
- `few_outputs`: the last convolution fills the processor's vector registers.
- `bands`: without gradients, the whole network a few rows at a time (`banded`), in float32 or bfloat16.

Below them, `vectors` has matrix products and sums on whole vector registers, `compiled` turns loops into machine code,
`parallel` runs pieces of work in threads, and `allocator` keeps freed memory for the next tensor. `layers` has the
accelerated classes, `conditions` says when they may take over.

Needs Numba, the extra `cpu`: pip install 'kpac[cpu]'.
"""

import logging
from functools import lru_cache
from typing import TypeVar, cast

import torch
from torch import nn

from kpac.cpu import bands
from kpac.cpu.allocator import freed_memory_kept, hand_back_freed, keep_freed_memory
from kpac.cpu.layers import ACCELERATED, view, whole_in_bands

__all__ = ["BAND_BYTES", "accelerate", "freed_memory_kept", "hand_back_freed", "missing", "pass_bytes", "plain_class"]

Model = TypeVar("Model", bound=nn.Module)

BAND_BYTES = 64 << 20  # bytes a thread, for the rows at work


def accelerate(model: Model, training: bool = False) -> Model:
    """The same network, computing sooner on a CPU; the model given stays as it is.

    The result shares the model's parameters, buffers and hooks, so it has the same `state_dict`, and training either
    trains both. Parts that are not KPAC's own, inputs on another device or in another number format, compiling and
    exporting: PyTorch's layers compute them as ever. Second derivatives and `torch.func` need the model as it was.

    Without Numba the model itself comes back, and a warning says what is missing.

    Args:
        model: any network; one that has no part of KPAC's comes back as it is.
        training: keeps the memory of freed tensors for the next step, for the rest of the process: a training step
            otherwise spends two fifths of its time on memory that the system clears (docs/benchmarks.md).
    """
    reason = missing()
    if reason:
        _warn(reason)
        return model
    if training:
        keep_freed_memory()
    return cast(Model, view(model))


@lru_cache
def missing() -> str | None:
    """Why networks cannot be accelerated; None if they can."""
    try:
        import numba  # noqa: F401
    except ImportError as error:  # also a version that does not fit NumPy's
        return str(error)
    return None


@lru_cache
def _warn(reason: str) -> None:
    logging.getLogger("kpac").warning(
        "computing with PyTorch alone (%s); on a CPU, pip install 'kpac[cpu]' makes KPAC 2 to 8 times faster", reason
    )


def plain_class(model: nn.Module) -> type[nn.Module]:
    """The class that says what a module computes: its own, or the one that `accelerate` replaced."""
    return next((plain for plain, fast in ACCELERATED.items() if type(model) is fast), type(model))


def pass_bytes(model: nn.Module, height: int, width: int) -> int | None:
    """The memory of the tensors in a pass over one image, in inference and under the autocast in force.

    The rows at work in each thread come to it: `BAND_BYTES` a thread.

    Returns:
        None where the model is not accelerated, or this pass would not be: count the plain model's tensors then.
    """
    with torch.no_grad():
        if not whole_in_bands(model, torch.empty(0)):
            return None
    return torch.float32.itemsize * bands.peak_values(model, height, width)  # in bfloat16 it is less
