"""Kernels of a KPAC block as small images."""

from dataclasses import dataclass

import numpy as np

from kpac.models.kpac import KPACBlock


@dataclass(frozen=True)
class KernelPatterns:
    """Spatial patterns of one kernel bank, strongest filter first."""

    patterns: np.ndarray  # F x k x k; the value of largest magnitude in each is positive
    share: np.ndarray  # F, the part of a filter's energy that its pattern explains, 0 to 1
    filters: np.ndarray  # F, index of the filter of each pattern


def kernel_patterns(block: KPACBlock, branch: int = 0) -> KernelPatterns:
    """Approximates each filter by one spatial pattern, the best for all of its input channels.

    A filter has a k x k kernel for each of C channels, which makes a C x k^2 matrix. Its first right singular vector
    times the first singular value is the pattern whose multiples approximate the C kernels best.

    Args:
        block: a KPAC block.
        branch: index of the kernel bank, for a block without kernel sharing.
    """
    weight = block.kernels[branch].detach().float().cpu().numpy()
    filters, channels, size, _ = weight.shape
    _, singular, right = np.linalg.svd(weight.reshape(filters, channels, size * size), full_matrices=False)
    patterns = right[:, 0] * singular[:, :1]
    largest = np.take_along_axis(patterns, np.abs(patterns).argmax(axis=1)[:, None], axis=1)
    patterns = (patterns * np.sign(largest)).reshape(filters, size, size)
    energy = np.square(singular).sum(axis=1)
    order = np.argsort(-energy, kind="stable")
    share = np.square(singular[:, 0]) / np.maximum(energy, np.finfo(np.float32).tiny)
    return KernelPatterns(patterns[order], share[order], order)
