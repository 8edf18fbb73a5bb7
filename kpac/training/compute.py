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

SIZES = 64  # limit on the number of crop sizes compiled in one run
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

Model = TypeVar("Model", bound=nn.Module)


class Compute:
    """Settings of `train.compute`, resolved for one device.

    Args:
        config: the section; null or "auto" means the default of the device.
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
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        if on_gpu:
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.tf32
            torch.backends.cudnn.benchmark = self.benchmark
        if config.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it is first used
            torch.use_deterministic_algorithms(True)
            deterministic: Any = torch.utils.deterministic
            deterministic.fill_uninitialized_memory = False  # no kernel of ours reads such memory

    def check_losses(self, names: Iterable[str]) -> None:
        """Refuses losses without a deterministic gradient if `deterministic` is set.

        Raises:
            UserError: the perceptual loss on a GPU: VGG's max-pooling adds its gradients in no fixed order.
        """
        if self.deterministic and self.device.type == "cuda" and "perceptual" in names:
            raise UserError(
                "train.compute.deterministic: the perceptual loss has no deterministic gradient on a GPU; "
                "leave it out of train.losses, or set deterministic to false"
            )

    def describe(self) -> dict[str, object]:
        """The resolved settings, for run.json."""
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
        """Moves the model to the device and, if so configured, accelerates it for the CPU; parameters are shared."""
        model = self.move(model)
        return accelerate(model, training=True) if self.accelerated else model

    def move(self, module: Model) -> Model:
        """Moves a module to the device, in the chosen memory layout."""
        return module.to(self.device).to(memory_format=self.memory_format)

    def compile(self, model: nn.Module) -> nn.Module:
        """Compiles the model for training steps; the result shares the model's parameters.

        Each crop size is compiled separately. By default PyTorch would switch to slower code for dynamic sizes at the
        second size, and would stop compiling after the eighth.
        """
        if not self.compiled:
            return model
        limit = "recompile_limit" if hasattr(torch._dynamo.config, "recompile_limit") else "cache_size_limit"
        setattr(torch._dynamo.config, limit, max(SIZES, getattr(torch._dynamo.config, limit)))
        if not self.cuda_graphs:
            return cast(nn.Module, torch.compile(model, dynamic=False))
        for parameter in model.parameters():
            # A CUDA graph overwrites its outputs at the next replay. A missing gradient would become such an output;
            # an existing one is accumulated into, in memory outside the graph.
            parameter.grad = torch.zeros_like(parameter)
        return _NewGraphStep(cast(nn.Module, torch.compile(model, dynamic=False, mode="reduce-overhead")))

    def batches(self, loader: Iterable[PackedBatch]) -> Iterator[Batch]:
        """Yields each batch on the device.

        With pinned memory, a separate CUDA stream copies and unpacks the next batch while the last step still runs.
        """
        stream = torch.cuda.Stream(self.device) if self.pinned else None
        for packed in loader:
            with torch.cuda.stream(stream):  # None means the current stream
                batch = packed.unpack(self.device, self.memory_format)
            if stream:
                current = torch.cuda.current_stream(self.device)
                current.wait_stream(stream)
                for tensor in (batch.views, batch.target):
                    tensor.record_stream(current)
            yield batch

    def autocast(self) -> torch.autocast:
        """Context in which convolutions use the chosen precision."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not torch.float32)

    def backward(self, loss: Tensor) -> None:
        """Backpropagates a loss, adding to the gradients of the parameters.

        A loss that is not finite makes every gradient NaN. Averaging over ranks then spreads the NaN to all ranks, so
        that all of them skip the step.
        """
        self.scaler.scale(loss * torch.where(loss.detach().isfinite(), 1.0, torch.nan)).backward()

    def update(self, optimizer: torch.optim.Optimizer, longest: float) -> Tensor:
        """Clips the gradient, makes the optimizer's step unless the gradient is not finite, and clears the gradient.

        With a fused optimizer the device itself skips the step, so the host does not synchronise.

        Args:
            optimizer: its parameters hold the gradients.
            longest: maximum norm of the gradient; longer gradients are scaled down to it.

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
            # As GradScaler does: a fused optimizer reads these attributes, and skips the step if found_inf is 1.
            told: Any = optimizer
            told.grad_scale, told.found_inf = None, (~norm.isfinite()).float()
            optimizer.step()
            del told.grad_scale, told.found_inf
        elif norm.isfinite():
            optimizer.step()
        optimizer.zero_grad(set_to_none=not self.cuda_graphs)
        return norm


class _NewGraphStep(nn.Module):
    """Marks each forward pass as a new CUDA-graph step: outputs of the last one may be overwritten."""

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
