"""Seeds, saves and restores the random generators of Python, NumPy, PyTorch and CUDA."""

import random
from typing import Any, cast

import numpy as np
import torch


def seed_all(seed: int, rank: int) -> None:
    """Seeds every generator, differently on each rank, so that dropout, for example, differs between ranks."""
    words = np.random.SeedSequence((seed, rank)).generate_state(3).tolist()
    torch.manual_seed(words[0])  # and all CUDA devices
    np.random.seed(words[1])  # noqa: NPY002
    random.seed(words[2])


def random_state(device: torch.device) -> dict[str, Any]:
    """Random states of Python, NumPy, PyTorch and the device, in types that torch.load(weights_only=True) accepts."""
    algorithm, keys, *rest = cast(tuple, np.random.get_state())  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": (algorithm, torch.from_numpy(keys.astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Restores what `random_state` returned; the state of a CPU run does not change the generator of a GPU."""
    algorithm, keys, *rest = state["numpy"]
    random.setstate(state["python"])
    np.random.set_state((algorithm, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)
