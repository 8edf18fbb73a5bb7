"""Loops that Numba compiles when they are first called, for the processor at hand; no compiler needs to be there.

What was compiled is kept beside the module, or in the user's cache folder, so that it takes its seconds once.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from types import CodeType
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Products and sums may be rounded once instead of twice; the loops run beside other threads.
OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}}


def compiled(function: Callable) -> Callable:
    """`function`, which takes arrays and numbers, as machine code that runs beside other threads.

    The variables that it takes from the function around it become constants.
    """
    from numba import njit  # imported when it is needed: importing kpac stays quick

    identity = _identity(function)
    # Numba keeps what it compiled by the function's name. A name for each set of constants keeps processes that compile
    # at the same time from writing into one file.
    function.__qualname__ = f"{function.__name__}_{identity[:16]}"
    try:
        made = njit(**OPTIONS, cache=True)(function)
    except RuntimeError:  # no folder can be written
        made = njit(**OPTIONS)(function)
    else:
        made._cache.save_overload = _unless_disk_fails(made._cache.save_overload)
    made._set_uuid(identity)  # Numba's own is random, and no other process would find what takes this as a constant
    return made


def _identity(function: Callable) -> str:
    """Of the code, of the constants, other compiled functions among them, and of the processor."""
    import llvmlite.binding as llvm

    constants = [cell.cell_contents for cell in function.__closure__ or ()]
    parts = [getattr(constant, "_uuid", None) or repr(constant) for constant in constants]
    processor = (llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())
    facts = (fingerprint(function.__code__), function.__module__, parts, OPTIONS, processor)
    return sha256(repr(facts).encode()).hexdigest()


def fingerprint(code: CodeType) -> str:
    """Of what a function does. Its file may have changed since it was imported."""
    constants = [fingerprint(value) if isinstance(value, CodeType) else repr(value) for value in code.co_consts]
    facts = (code.co_name, code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars)
    return sha256(repr(facts).encode()).hexdigest()


def _unless_disk_fails(save: Callable) -> Callable:
    def save_or_not(*arguments: Any) -> None:
        with suppress(OSError):  # compiled again the next time
            save(*arguments)

    return save_or_not


def array(values: Tensor) -> np.ndarray:
    """The memory of a tensor for compiled loops, which know bfloat16 as 16 bits; see `access`."""
    values = values.detach()
    return values.view(torch.uint16).numpy() if values.dtype == torch.bfloat16 else values.numpy()


@lru_cache
def access(dtype: torch.dtype) -> tuple[Callable, Callable]:
    """How compiled loops read a value of an array as float32, and round float32 to a value of an array."""
    if dtype != torch.bfloat16:
        return (compiled(_itself),) * 2
    half, one, bits = np.uint32(0x7FFF), np.uint32(1), np.uint32(16)

    @compiled
    def load(value):
        return np.uint32(np.uint32(value) << bits).view(np.float32)

    @compiled
    def store(value):
        found = np.float32(value).view(np.uint32)
        return np.uint16((found + half + ((found >> bits) & one)) >> bits)  # to the nearest, ties to even

    return load, store


def _itself(value):
    return value
