"""Full float32 precision on GPUs, for everything but training steps."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

PRECISION = "float32 networks without TF32, float64 metrics"  # describes evaluations in results.json


@contextmanager
def full_float32() -> Iterator[None]:
    """Context without TF32 and cuDNN's benchmark; deterministic mode, if on, only warns.

    By default PyTorch lets cuDNN round factors to the 10 bits of TF32, which changes the third decimal of PSNR. cuDNN's
    benchmark would time its algorithms again for every image size.
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
