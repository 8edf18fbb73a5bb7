"""How the network computes on a device: number formats, memory layout, compilation, and the optimizer's step."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from kpac.config import ComputeConfig
from kpac.cpu import accelerate
from kpac.data.batches import Batch, PackedBatch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Compute:
    """The choices of `train.compute`, made for one device.

    Args:
        config: a value of null, or "auto", follows the device.
        device: where the network trains.
    """

    def __init__(self, config: ComputeConfig, device: torch.device):
        on_gpu = device.type == "cuda"
        self.device = device
        self.dtype = DTYPES[_default_precision(device) if config.precision == "auto" else config.precision]
        self.memory_format = torch.channels_last if _or(config.channels_last, on_gpu) else torch.contiguous_format
        self.fused = config.fused_optimizer
        self.pinned = on_gpu and _or(config.prefetch, True)
        self.compiled = config.compile
        self.accelerated = _or(config.accelerate, not on_gpu)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype is torch.float16)
        if on_gpu:
            torch.backends.cuda.matmul.allow_tf32 = config.tf32
            torch.backends.cudnn.allow_tf32 = config.tf32

    def describe(self) -> dict[str, object]:
        """What was chosen, for run.json."""
        return {
            "precision": str(self.dtype).removeprefix("torch."),
            "tf32": self.device.type == "cuda" and torch.backends.cudnn.allow_tf32,
            "channels_last": self.memory_format is torch.channels_last,
            "compile": self.compiled,
            "accelerate": self.accelerated,
            "fused_optimizer": self.fused,
            "prefetch": self.pinned,
        }

    def place(self, model: nn.Module) -> nn.Module:
        """The model on the device, in the chosen memory layout, with the same parameters."""
        model = model.to(self.device, memory_format=self.memory_format)
        return accelerate(model, training=True) if self.accelerated else model

    def compile(self, model: nn.Module) -> nn.Module:
        """What to call in the training step in place of the model; the parameters are the model's own."""
        return torch.compile(model) if self.compiled else model

    def batches(self, loader: Iterable[PackedBatch]) -> Iterator[Batch]:
        """Each batch, on the device.

        From pinned memory, a stream of its own copies and unpacks it while the last step still computes.
        """
        stream = torch.cuda.Stream(self.device) if self.pinned else None
        for packed in loader:
            with torch.cuda.stream(stream):  # a stream of None is the current one
                batch = packed.unpack(self.device, self.memory_format)
            if stream:
                current = torch.cuda.current_stream(self.device)
                current.wait_stream(stream)
                for tensor in (batch.views, batch.target):
                    tensor.record_stream(current)
            yield batch

    def autocast(self) -> torch.autocast:
        """Inside, convolutions compute in the chosen precision."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not torch.float32)

    def backward(self, loss: Tensor) -> None:
        """Adds a loss's gradients to the parameters'.

        Where the loss is not finite, every gradient becomes NaN: averaged over ranks, it tells all of them.
        """
        self.scaler.scale(loss * torch.where(loss.detach().isfinite(), 1.0, torch.nan)).backward()

    def update(self, optimizer: torch.optim.Optimizer, longest: float) -> Tensor:
        """Clips the gradient and makes the optimizer's step, unless the gradient is not finite; clears the gradient.

        With a fused optimizer, or with a scaler and one, the device decides and the host does not wait.

        Args:
            optimizer: its parameters hold the gradients.
            longest: norm that longer gradients are scaled down to.

        Returns:
            (), the gradient's norm before clipping; not finite if the step was skipped.
        """
        self.scaler.unscale_(optimizer)
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, longest)
        if self.scaler.is_enabled():
            self.scaler.step(optimizer)
            self.scaler.update()
        elif self.fused:
            # What GradScaler does for fused optimizers: these attributes are PyTorch's way to tell the kernel.
            optimizer.grad_scale, optimizer.found_inf = None, (~norm.isfinite()).float()
            optimizer.step()
            del optimizer.grad_scale, optimizer.found_inf
        elif norm.isfinite():
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return norm


def _or(choice: bool | None, default: bool) -> bool:
    return default if choice is None else choice


def _default_precision(device: torch.device) -> str:
    on_gpu = device.type == "cuda"
    return "bfloat16" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
