"""Provenance of learned metrics: version of the package, and a hash of the weights."""

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor, nn


def describe_metric(metric: nn.Module, package: str, **facts: str) -> dict[str, str]:
    """Entry of a learned metric in results.json.

    Args:
        metric: the module with its weights.
        package: name of the package that computes it.
        facts: additional entries, such as the backbone.
    """
    with suppress(PackageNotFoundError):
        package = f"{package} {version(package)}"
    return {"package": package, **facts, "sha256": weights_hash(metric)}


def weights_hash(module: nn.Module) -> str:
    """SHA-256 of all tensors in a module: parameters, buffers and plain attributes."""
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
