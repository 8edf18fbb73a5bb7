"""The same network, faster on a CPU.

Nobody needs this folder to understand KPAC: `kpac.models.kpac` and `kpac.models.network` say what is computed, and the
tests hold this folder to them, in values and in gradients. docs/benchmarks.md has the gain of each idea, and what was
tried and dropped.

- `shared_kernel`: the five dilated convolutions of a block share their products.
- `few_outputs`: the last convolution fills the processor's vector units.
- `bands`: without gradients, the whole network a few rows at a time, in little memory.
"""

import torch
from torch import Tensor


def is_plain(x: Tensor) -> bool:
    """float32 on a CPU, for this moment: no autocast, no tracing, compiling or exporting."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or type(x) is not Tensor:
        return False
    return x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
