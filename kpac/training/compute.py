"""How the network computes on a device: number formats, memory layout, compilation, and the optimizer's step."""

import os
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from kpac.config import ComputeConfig
from kpac.cpu import accelerate
from kpac.data.batches import Batch, PackedBatch
from kpac.errors import UserError

SIZES = 64  # crop sizes that a training may compile
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

Model = TypeVar("Model", bound=nn.Module)


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
        self.cuda_graphs = config.cuda_graphs and on_gpu
        self.deterministic = config.deterministic
        self.benchmark = on_gpu and _or(config.cudnn_benchmark, not config.deterministic)
        if on_gpu:
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.tf32
            torch.backends.cudnn.benchmark = self.benchmark
        if config.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it is first used
            torch.use_deterministic_algorithms(True)
            deterministic: Any = torch.utils.deterministic
            deterministic.fill_uninitialized_memory = False  # no kernel of ours reads such memory

    def check_losses(self, names: Iterable[str]) -> None:
        """Refuses a loss without a deterministic gradient where only such are wanted.

        Raises:
            UserError: the perceptual loss; on a GPU, VGG's max-pooling adds its gradients in no fixed order.
        """
        if self.deterministic and self.device.type == "cuda" and "perceptual" in names:
            raise UserError(
                "train.compute.deterministic: the perceptual loss has no deterministic gradient on a GPU; "
                "leave it out of train.losses, or set deterministic to false"
            )

    def describe(self) -> dict[str, object]:
        """The choices, for run.json."""
        return {
            "precision": str(self.dtype).removeprefix("torch."),
            "tf32": self.device.type == "cuda" and torch.backends.cudnn.allow_tf32,
            "channels_last": self.memory_format is torch.channels_last,
            "compile": self.compiled,
            "accelerate": self.accelerated,
            "cuda_graphs": self.cuda_graphs,
            "cudnn_benchmark": self.benchmark,
            "deterministic": self.deterministic,
            "fused_optimizer": self.fused,
            "prefetch": self.pinned,
        }

    def place(self, model: Model) -> Model:
        """The model on the device, in the chosen memory layout, with the same parameters."""
        model = self.move(model)
        return accelerate(model, training=True) if self.accelerated else model

    def move(self, module: Model) -> Model:
        """Moves a module to the device, in the chosen memory layout."""
        return module.to(self.device).to(memory_format=self.memory_format)

    def compile(self, model: nn.Module) -> nn.Module:
        """A network to call in training steps in place of the model; the parameters are the model's own.

        Each crop size is compiled for itself: after a second size, PyTorch would go over to code for any size, which is
        slower, and after the eighth to no compilation at all.
        """
        if not self.compiled:
            return model
        limit = "recompile_limit" if hasattr(torch._dynamo.config, "recompile_limit") else "cache_size_limit"
        setattr(torch._dynamo.config, limit, max(SIZES, getattr(torch._dynamo.config, limit)))
        if not self.cuda_graphs:
            return cast(nn.Module, torch.compile(model, dynamic=False))
        for parameter in model.parameters():
            # A graph's outputs are overwritten by its next replay. A gradient that is there already is added to, and
            # stays in memory of its own; one that is not would be the graph's output itself.
            parameter.grad = torch.zeros_like(parameter)
        return _NewGraphStep(cast(nn.Module, torch.compile(model, dynamic=False, mode="reduce-overhead")))

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
            told: Any = optimizer
            told.grad_scale, told.found_inf = None, (~norm.isfinite()).float()
            optimizer.step()
            del told.grad_scale, told.found_inf
        elif norm.isfinite():
            optimizer.step()
        optimizer.zero_grad(set_to_none=not self.cuda_graphs)
        return norm


class _NewGraphStep(nn.Module):
    """Tells PyTorch before each pass that the outputs of the pass before may be overwritten."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, views: Tensor) -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()
        return self.network(views)


def _or(choice: bool | None, default: bool) -> bool:
    return default if choice is None else choice


def _default_precision(device: torch.device) -> str:
    on_gpu = device.type == "cuda"
    return "bfloat16" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
