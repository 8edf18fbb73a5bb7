"""NAFNet (Chen et al., "Simple Baselines for Image Restoration", ECCV 2022), as a baseline to train (extra `zoo`)."""

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from kpac.errors import UserError
from kpac.models.registry import register

Blocks = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)]


@register("nafnet")
class NAFNetBaseline(nn.Module):
    """spandrel's NAFNet as a registered network.

    Args:
        width: channels of the first level; 32 and 64 in the paper.
        encoder_blocks, middle_blocks, decoder_blocks: blocks at each level; by default as in the paper's deblurring
            networks.

    Shape: (N, 3, H, W) -> (N, 3, H, W), any H and W.

    Raises:
        UserError: spandrel is not installed, or encoder and decoder have different numbers of levels.
    """

    views = ("center",)

    def __init__(
        self,
        width: Annotated[int, Field(ge=1)] = 32,
        encoder_blocks: Blocks = [1, 1, 1, 28],  # noqa: B006
        middle_blocks: Annotated[int, Field(ge=1)] = 1,
        decoder_blocks: Blocks = [1, 1, 1, 1],  # noqa: B006
    ):
        super().__init__()
        if len(encoder_blocks) != len(decoder_blocks):
            raise UserError(
                f"model.decoder_blocks: has {len(decoder_blocks)} levels, model.encoder_blocks has "
                f"{len(encoder_blocks)}; expected equal numbers"
            )
        try:
            from spandrel.architectures.NAFNet import NAFNet
        except ModuleNotFoundError as error:
            raise UserError(f"model.name: nafnet needs the package '{error.name}': pip install 'kpac[zoo]'") from None
        self.network = NAFNet(
            img_channel=3,
            width=width,
            middle_blk_num=middle_blocks,
            enc_blk_nums=encoder_blocks,
            dec_blk_nums=decoder_blocks,
        )

    def forward(self, views: Tensor) -> Tensor:
        return self.network(views)
