"""KPACNet: an encoder, a chain of KPAC blocks, and a decoder that predicts a residual (paper, Sec. 3.3)."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, ConfigDict, Field
from torch import Tensor, nn
from typing_extensions import TypedDict

from kpac.models.health import BlockHealth, block_health
from kpac.models.initialization import initialize
from kpac.models.kpac import KPACBlock, PlainBlock, ScaleAttention
from kpac.models.layers import Conv, DownConv, ResidualConv, UpConv, pad_to_multiple
from kpac.models.recording import outputs_of

View = Literal["center", "left", "right"]


def _odd(size: int) -> int:
    if size % 2 == 0:
        raise ValueError("should be odd")
    return size


def _known_views(views: tuple[View, ...]) -> tuple[View, ...]:
    if views not in (("center",), ("center", "left", "right")):
        raise ValueError("should be [center] or [center, left, right]")
    return views


class ShapePooling(TypedDict):
    """Window of shape attention's local pooling: height and width, in image pixels."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]  # pydantic reads it

    window: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]]


class DecoderStage(nn.Module):
    """Upsamples features by two, then merges them with the encoder's features of that size.

    Args:
        in_channels: channels of the features to upsample.
        out_channels: channels of the upsampled features and of the skip.
        merge: the convolution that reads both, with 2 * out_channels input channels.
    """

    def __init__(self, in_channels: int, out_channels: int, merge: nn.Module):
        super().__init__()
        self.up = UpConv(in_channels, out_channels)
        self.merge = merge

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.merge(torch.cat([self.up(x), skip], dim=1))


class KPACNet(nn.Module):
    """The network of the paper (Sec. 3.3), for one center view or for dual-pixel views.

    `forward` takes and returns images in [0, 1]; it scales them to the published network's range [-1, 1] inside. The
    output is not clamped. Any height and width is accepted: an image whose size is not a multiple of 2 ** levels is
    padded by reflection, and the output is cropped back.

    Args:
        levels: how many times the encoder halves the size, 2 or 3.
        width: channels of the first level, 48 in the paper; the blocks have twice as many.
        blocks: KPAC blocks in the chain, 2 in the paper's models.
        kernel_size: side of the blocks' shared kernel, odd.
        dilations: dilations of a block's parallel branches, one branch each.
        block: "kpac", or "plain" for a baseline of ordinary convolutions with about as many parameters.
        share_kernel, scale_attention, shape_attention: False switches off that part of the KPAC blocks; see
            `KPACBlock`.
        shape_pooling: None pools over the whole image, as published; {"window": (height, width)} pools over local
            windows, usually of the training crops' size, in pixels; see `ShapeAttention`.
        views: ("center",), or ("center", "left", "right"): the encoder then reads the two dual-pixel views, and the
            residual is added to the center view.
        init: initial weights, "authors" (normal, deviation 0.04) or "he"; see `kpac.models.initialization.initialize`.

    Shape: (N, 3 * len(views), H, W) -> (N, 3, H, W).
    """

    def __init__(
        self,
        levels: Literal[2, 3] = 2,
        width: Annotated[int, Field(ge=4)] = 48,
        blocks: Annotated[int, Field(ge=0)] = 2,
        kernel_size: Annotated[int, Field(ge=1), AfterValidator(_odd)] = 5,
        dilations: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (1, 2, 3, 4, 5),
        block: Literal["kpac", "plain"] = "kpac",
        share_kernel: bool = True,
        scale_attention: bool = True,
        shape_attention: bool = True,
        shape_pooling: ShapePooling | None = None,
        views: Annotated[tuple[View, ...], AfterValidator(_known_views)] = ("center",),
        init: Literal["authors", "he"] = "authors",
    ):
        super().__init__()
        self.views: tuple[View, ...] = tuple(views)
        self.multiple = 2**levels
        channels = [width, width] + [2 * width] * (levels - 1)  # at full size, half size, quarter size, ...
        deep = channels[-1]
        encoder_views = self.views[1:] or self.views
        self.encoder = nn.ModuleList([nn.Sequential(Conv(3 * len(encoder_views), width, 5), Conv(width, width, 3))])
        for shallow, deeper in pairwise(channels):
            self.encoder.append(nn.Sequential(DownConv(shallow, deeper), Conv(deeper, deeper, 3)))
        window = None
        if shape_pooling:
            rows, columns = shape_pooling["window"]
            window = (-(-rows // self.multiple), -(-columns // self.multiple))

        def make_block() -> nn.Module:
            kpac = KPACBlock(
                deep, deep // 2, kernel_size, dilations, share_kernel, scale_attention, shape_attention, window
            )
            if block == "kpac":
                return kpac
            return PlainBlock(deep, kernel_size, parameters=sum(parameter.numel() for parameter in kpac.parameters()))

        self.blocks = nn.ModuleList(make_block() for _ in range(blocks))
        fusion, residual = Conv((blocks + 1) * deep, deep, 3), ResidualConv(2 * channels[0])
        self.fusion = nn.Sequential(fusion, Conv(deep, deep, 3))
        self.decoder = nn.ModuleList()
        for level in reversed(range(levels)):
            shallow = channels[level]
            merge = Conv(2 * shallow, shallow, 3) if level else residual
            self.decoder.append(DecoderStage(channels[level + 1], shallow, merge))
        initialize(self, init, last=residual, fusion=fusion)

    def forward(self, views: Tensor) -> Tensor:
        expected = 3 * len(self.views)
        if views.dim() != 4 or views.shape[1] != expected:
            found = tuple(views.shape)
            raise ValueError(
                f"expected views of shape (N, {expected}, H, W) for {', '.join(self.views)}, found {found}"
            )
        height, width = views.shape[-2:]
        x = self.prepare(views)
        output = x[:, :3] + self.residual(self.encoder_input(x))
        return (output[..., :height, :width] + 1) / 2

    def prepare(self, views: Tensor) -> Tensor:
        """Scales the views to [-1, 1] and pads height and width to multiples of 2 ** levels."""
        return pad_to_multiple(views, self.multiple) * 2 - 1

    def encoder_input(self, views: Tensor) -> Tensor:
        """Selects the channels that the encoder reads: the center view, or the left and right dual-pixel views."""
        return views[:, 3:] if len(self.views) > 1 else views

    def residual(self, x: Tensor) -> Tensor:
        """The residual that the network adds to the center view, on the [-1, 1] scale.

        H and W must be multiples of 2 ** levels.

        Shape: (N, 3 or 6, H, W) -> (N, 3, H, W).
        """
        skips = self.encode(x)
        chain = [skips.pop()]
        for block in self.blocks:
            chain.append(block(chain[-1]))
        return self.decode(chain, skips)

    def attention_maps(self, views: Tensor) -> dict[str, Tensor]:
        """Scale attention of every block, from one pass over an image (1, 3V, H, W) in [0, 1].

        Returns:
            Module name -> (branches, h, w), each weight in (0, 1); h x w is the size of the block's features.
        """
        names: dict[nn.Module, str] = {
            module: name for name, module in self.named_modules() if isinstance(module, ScaleAttention)
        }
        with torch.no_grad(), outputs_of(names) as maps:
            self(views)
        return {names[module]: weights[0].float() for module, weights in maps.items()}

    def block_health(self, views: Tensor) -> list[BlockHealth]:
        """Health of each block and its attention; see `kpac.models.health.block_health`."""
        return block_health(self, views)

    def encode(self, x: Tensor, levels: int | None = None) -> list[Tensor]:
        """Encoder features of every level, or of the first `levels`: (N, channels, H, W), then H / 2, and so on."""
        features = []
        for stage in self.encoder[:levels]:
            x = stage(x)
            features.append(x)
        return features

    def decode(self, chain: list[Tensor], skips: list[Tensor]) -> Tensor:
        """Computes the residual from the chain's features and the encoder's skips.

        Args:
            chain: the input of the first block, then the output of every block, (N, channels, H, W) each.
            skips: the encoder's features of the levels above, full size first. The list is emptied, so that each
                tensor is freed once it is merged.
        """
        x = self.fusion(torch.cat(chain, dim=1))
        for stage in self.decoder:
            x = stage(x, skips.pop())
        return x

    def deepest(self, x: Tensor) -> Tensor:
        """The encoder's deepest features, for callers that run the network in stages, such as `kpac.restore.tiling`."""
        return self.encode(x)[-1]

    def complete(self, x: Tensor, chain: Sequence[Tensor]) -> Tensor:
        """The residual from the chain's features; recomputes the encoder's skips from `x`."""
        return self.decode(list(chain), self.encode(x, levels=len(self.encoder) - 1))
