"""Arithmetic of everything but training steps: float32 as such."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

PRECISION = "float32 networks without TF32, float64 metrics"  # of evaluations, for results.json


@contextmanager
def full_float32() -> Iterator[None]:
    """Inside, a GPU computes products of float32 in float32, and does not choose algorithms by timing them.

    PyTorch lets cuDNN round the factors to TensorFloat-32's 10 bits by default, which moves PSNR in the third decimal
    or so, and `train.compute` sets both switches for training steps. cuDNN's benchmark would time every image size
    anew. Operations without a deterministic form, which deterministic trainings refuse, are allowed.
    """
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, products.allow_tf32, cudnn.benchmark
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn.allow_tf32 = products.allow_tf32 = cudnn.benchmark = False
    if deterministic:
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        cudnn.allow_tf32, products.allow_tf32, cudnn.benchmark = before
        if deterministic:
            torch.use_deterministic_algorithms(True, warn_only=warn_only)
