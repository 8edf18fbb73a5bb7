"""Faster CPU implementations of KPAC's networks, behind one call: `accelerate(model)`.

`kpac.models` defines the computation in plain PyTorch and does not depend on this package. The tests check that both
give the same values and gradients. docs/benchmarks.md lists the gain of each idea, and the ideas that were dropped. In
order, from the most specific to the method to the most general:

- `shared_kernel`: the five dilated convolutions of a block share their products.
- `winograd`: convolutions with a fraction of the multiplications; `filtering` derives the transforms, `tiles` has the
  loops.
- `few_outputs`: the last convolution, rearranged to fill the processor's vector registers.
- `bands`: inference of the whole network a few rows at a time (`banded`), in float32 or bfloat16.

Their building blocks: `vectors` has matrix products and sums on whole vector registers, `compiled` turns loops into
machine code, `parallel` runs pieces of work in threads, and `allocator` keeps freed memory for the next tensor.
`layers` has the accelerated classes, and `conditions` decides when they can be used.

Needs Numba, the extra `cpu`: pip install 'kpac[cpu]'.
"""

import copy
import logging
from functools import lru_cache, partial
from typing import Any, TypeVar, cast

import torch
from torch import nn

from kpac.cpu import bands
from kpac.cpu.allocator import freed_memory_kept, hand_back_freed, keep_freed_memory
from kpac.cpu.layers import ACCELERATED, runs_in_bands, view

__all__ = [
    "THREAD_BYTES",
    "accelerate",
    "freed_memory_kept",
    "hand_back_freed",
    "missing",
    "on_meta",
    "plain_class",
    "runs_in_bands",
]

Model = TypeVar("Model", bound=nn.Module)

THREAD_BYTES = 64 << 20  # working memory for bands of rows (`runs_in_bands`), in bytes per thread


def accelerate(model: Model, training: bool = False) -> Model:
    """Returns a network that computes the same as `model`, faster on a CPU; `model` itself is not changed.

    The result shares the model's parameters, buffers and hooks: it has the same `state_dict`, and training one trains
    both. PyTorch's plain layers are used as before for parts that are not KPAC's, for inputs on another device or of
    another dtype, and while compiling or exporting. Double backward and `torch.func` need the original model.

    Without Numba, logs a warning that says what is missing, and returns the model itself.

    Args:
        model: any network; one without KPAC's layers is returned unchanged.
        training: keeps the memory of freed tensors for the next step, for the rest of the process. Without it, a
            training step spends two fifths of its time on the system clearing memory (docs/benchmarks.md).
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
    """The reason why networks cannot be accelerated; None if they can."""
    try:
        import numba  # noqa: F401
    except ImportError as error:  # also raised if Numba does not support the NumPy version
        return str(error)
    return None


@lru_cache
def _warn(reason: str) -> None:
    logging.getLogger("kpac").warning(
        "computing with PyTorch alone (%s); on a CPU, pip install 'kpac[cpu]' makes KPAC 2 to 8 times faster", reason
    )


def plain_class(model: nn.Module) -> type[nn.Module]:
    """The plain class of a module: its own, or the one that `accelerate` replaced."""
    return next((plain for plain, fast in ACCELERATED.items() if type(model) is fast), type(model))


def on_meta(model: Model, dtype: torch.dtype) -> Model:
    """A copy on the meta device: its inference allocates what the model's does under the current autocast.

    Args:
        model: a network, accelerated or not.
        dtype: number format of the layers. A network that runs in bands is copied as float32, an upper bound for
            bfloat16, where the image and the output stay float32.
    """
    in_bands = runs_in_bands(model)
    ghost: Any = copy.deepcopy(model).to("meta", torch.float32 if in_bands else dtype).eval()
    if in_bands:
        ghost.residual = partial(bands.residual, ghost)
    return ghost
