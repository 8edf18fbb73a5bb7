"""The accelerated classes: each computes the same as its parent in `kpac.models`, or falls back to it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kpac.cpu import bands, few_outputs, shared_kernel, winograd
from kpac.cpu.conditions import fits, is_float_on_cpu, is_plain, number_format
from kpac.cpu.instructions import fill_registers
from kpac.models.kpac import KPACBlock, PlainBlock, ScaleAttention, ShapeAttention
from kpac.models.layers import LEAKY_SLOPE, Conv, DownConv, ResidualConv, UpConv, activation
from kpac.models.network import DecoderStage, KPACNet


def _filtered(layer: Conv | DownConv | UpConv, x: Tensor) -> Tensor | None:
    """Computes a layer by minimal filtering; None if that does not apply or would save nothing."""
    if fits(x, layer.in_channels, layer.weight, layer.bias) and winograd.suits(layer):
        return winograd.convolve(layer, LEAKY_SLOPE, x)
    return None


class FastConv(Conv):
    def forward(self, x: Tensor) -> Tensor:
        output = _filtered(self, x)
        return super().forward(x) if output is None else output


class FastDownConv(DownConv):
    def forward(self, x: Tensor) -> Tensor:
        output = _filtered(self, x)
        return super().forward(x) if output is None else output


class FastUpConv(UpConv):
    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        output = _filtered(self, x) if output_size is None else None
        return super().forward(x, output_size) if output is None else output


class FastResidualConv(ResidualConv):
    bias: nn.Parameter

    def forward(self, x: Tensor) -> Tensor:
        if fits(x, self.in_channels, self.weight, self.bias) and fill_registers(self.in_channels):
            return few_outputs.convolve(x, self.weight, self.bias)
        return super().forward(x)


class FastBlock(KPACBlock):
    def branches(self, x: Tensor) -> list[Tensor]:
        if fits(x, self.kernels[0].shape[1], *self.kernels) and shared_kernel.suits(list(self.kernels), self.dilations):
            return list(activation(shared_kernel.shared_branches(x, self.kernels[0], self.dilations)))
        return super().branches(x)

    def forward(self, x: Tensor, shape: Tensor | None = None) -> Tensor:
        return bands.apply_block(self, x, shape) if _in_bands(self, x) else super().forward(x, shape)


class FastPlainBlock(PlainBlock):
    def forward(self, x: Tensor) -> Tensor:
        return bands.apply_block(self, x) if _in_bands(self, x) else super().forward(x)


class FastNet(KPACNet):
    def prepare(self, views: Tensor) -> Tensor:
        x = super().prepare(views)
        return x.contiguous(memory_format=torch.channels_last) if is_plain(x) or x.is_meta else x

    def residual(self, x: Tensor) -> Tensor:
        return bands.residual(self, x) if _in_bands(self, x) else super().residual(x)

    def deepest(self, x: Tensor) -> Tensor:
        return bands.encode(self, x) if _in_bands(self, x) else super().deepest(x)

    def complete(self, x: Tensor, chain: Sequence[Tensor]) -> Tensor:
        return bands.decode(self, x, chain) if _in_bands(self, x) else super().complete(x, chain)


ACCELERATED: dict[type[nn.Module], type[nn.Module]] = {
    Conv: FastConv,
    DownConv: FastDownConv,
    UpConv: FastUpConv,
    ResidualConv: FastResidualConv,
    KPACBlock: FastBlock,
    PlainBlock: FastPlainBlock,
    KPACNet: FastNet,
}

_KNOWN = {*ACCELERATED.values(), DecoderStage, ScaleAttention, ShapeAttention}
_KNOWN |= {nn.Conv2d, nn.Sequential, nn.ModuleList, nn.ParameterList}


def view(module: nn.Module) -> nn.Module:
    """A copy of the module with accelerated classes that shares everything else; the module itself if none applies."""
    return _view(module, {})


def _view(module: nn.Module, done: dict[nn.Module, nn.Module]) -> nn.Module:
    if module not in done:
        children = {name: child and _view(child, done) for name, child in module._modules.items()}
        cls = ACCELERATED.get(type(module), type(module))
        done[module] = module
        if cls is not type(module) or any(child is not module._modules[name] for name, child in children.items()):
            done[module] = made = object.__new__(cls)
            # Both share the dictionaries of parameters, buffers and hooks, so they always stay the same.
            made.__dict__ = {**module.__dict__, "_modules": children}
    return done[module]


def runs_in_bands(model: nn.Module) -> bool:
    """Whether inference computes the whole network in bands of rows, under the current autocast."""
    with torch.no_grad():
        return isinstance(model, FastNet) and _in_bands(model, torch.empty(0, device="cpu", dtype=torch.float32))


def _in_bands(module: nn.Module, x: Tensor) -> bool:
    """Whether `bands` can compute a module: no gradients, only known parts in known places, and no hooks."""
    if torch.is_grad_enabled() or number_format(x) is None:
        return False
    if isinstance(module, FastNet):
        shaped = x.dtype == torch.float32
    else:
        channels = next(module.parameters()).shape[1]  # of the kernel, or of the first convolution
        shaped = x.dim() == 4 and x.shape[1] == channels and x.numel() > 0
    known = all(is_float_on_cpu(parameter) for parameter in module.parameters())
    return shaped and known and all(_is_known(part) for part in module.modules()) and bands.suits(module)


def _is_known(module: nn.Module) -> bool:
    return type(module) in _KNOWN and not module._forward_hooks and not module._forward_pre_hooks
