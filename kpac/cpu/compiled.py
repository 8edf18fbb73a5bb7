"""Compiles loops with Numba on their first call, for the current processor; no C compiler is needed.

The machine code is cached beside the module, or in the user's cache folder, so that it is compiled only once.
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

# nogil: releases the GIL, to run in several threads. contract: allows fused multiply-add, which rounds once, not twice.
OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}}


def compiled(function: Callable) -> Callable:
    """Compiles a function of arrays and numbers to machine code that releases the GIL.

    The variables of its closure become constants.
    """
    from numba import njit  # imported late, so that importing kpac is fast

    identity = _identity(function)
    # Numba's cache files are named after the function. One name per set of constants prevents processes that compile at
    # the same time from writing to the same file.
    function.__qualname__ = f"{function.__name__}_{identity[:16]}"
    try:
        made = njit(**OPTIONS, cache=True)(function)
    except RuntimeError:  # no writable cache folder
        made = njit(**OPTIONS)(function)
    else:
        made._cache.save_overload = _unless_disk_fails(made._cache.save_overload)
    made._set_uuid(identity)  # Numba's own is random: other processes could not find cached callers
    return made


def _identity(function: Callable) -> str:
    """Hash of a function's code, its constants (including compiled functions), and the processor."""
    import llvmlite.binding as llvm

    constants = [cell.cell_contents for cell in function.__closure__ or ()]
    parts = [getattr(constant, "_uuid", None) or repr(constant) for constant in constants]
    processor = (llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())
    facts = (code_hash(function.__code__), function.__module__, parts, OPTIONS, processor)
    return sha256(repr(facts).encode()).hexdigest()


def code_hash(code: CodeType) -> str:
    """Hash of a function's bytecode: its source file may have changed since it was imported."""
    constants = [code_hash(value) if isinstance(value, CodeType) else repr(value) for value in code.co_consts]
    facts = (code.co_name, code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars)
    return sha256(repr(facts).encode()).hexdigest()


def _unless_disk_fails(save: Callable) -> Callable:
    def save_or_not(*arguments: Any) -> None:
        with suppress(OSError):  # if saving fails, the next process compiles again
            save(*arguments)

    return save_or_not


def array(values: Tensor) -> np.ndarray:
    """Returns a tensor's memory as an array for compiled loops; bfloat16 becomes uint16, see `access`."""
    values = values.detach()
    return values.view(torch.uint16).numpy() if values.dtype == torch.bfloat16 else values.numpy()


@lru_cache
def access(dtype: torch.dtype) -> tuple[Callable, Callable]:
    """Functions for compiled loops: array value to float32, and float32 rounded to an array value."""
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
