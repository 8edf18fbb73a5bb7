"""What a learned metric was computed with: its package's version, and a hash of its weights."""

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor, nn


def describe_metric(metric: nn.Module, package: str, **facts: str) -> dict[str, str]:
    """An entry of results.json.

    Args:
        metric: with its weights.
        package: that computes it.
        facts: more to say, such as the backbone.
    """
    with suppress(PackageNotFoundError):
        package = f"{package} {version(package)}"
    return {"package": package, **facts, "sha256": weights_hash(metric)}


def weights_hash(module: nn.Module) -> str:
    """SHA-256 of all tensors that a module holds: parameters, buffers, and tensors that are plain attributes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(_tensors(module)):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _tensors(module: nn.Module) -> Iterator[tuple[str, Any]]:
    for prefix, part in module.named_modules():
        own = {**dict(part.named_parameters(recurse=False)), **dict(part.named_buffers(recurse=False)), **vars(part)}
        for name, value in own.items():
            if isinstance(value, Tensor):
                yield f"{prefix}.{name}", value
