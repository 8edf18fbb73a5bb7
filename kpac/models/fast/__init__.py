"""The same network, faster on a CPU.

Nobody needs this folder to understand KPAC: `kpac.models.kpac` and `kpac.models.network` say what is computed, and the
tests hold this folder to them, in values and in gradients. In brackets the gain of each idea for an image of 1120x1680
and for a training step of 8 crops of 256x256, on two cores; docs/benchmarks.md has the tables, and what was dropped.

- `shared_kernel`: the five dilated convolutions of a block share their products (1.22 and 1.37 times faster).
- `few_outputs`: the last convolution fills the processor's vector units (training: 1.20 times faster).
- `bands`: without gradients, the whole network a few rows at a time (image: 1.26 times faster, 66 % of the memory).
"""

import torch
from torch import Tensor


def is_plain(x: Tensor) -> bool:
    """float32 on a CPU, for this moment: no autocast, no tracing, compiling or exporting."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or type(x) is not Tensor:
        return False
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
