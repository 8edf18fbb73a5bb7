"""Attention of the KPAC blocks for one image: scale-attention maps, the expected dilation, and shape attention."""

from dataclasses import dataclass

import numpy as np
from scipy import stats
from torch import Tensor, nn

from kpac.errors import UserError
from kpac.models.interface import ImageNetwork
from kpac.models.kpac import KPACBlock
from kpac.models.recording import outputs_of
from kpac.restore.restorer import Restorer


@dataclass(frozen=True)
class BlockAttention:
    """Attention of one block for one image; h x w is the size of the block's features.

    Args:
        dilations: dilations of the B branches.
        scale: B x h x w, each weight in (0, 1); None for a block without scale attention.
        shape: one weight per filter, in (0, 1), averaged over the image; None for a block without shape attention.
    """

    dilations: tuple[int, ...]
    scale: np.ndarray | None
    shape: np.ndarray | None

    @property
    def expected_dilation(self) -> np.ndarray:
        """The mean dilation under the weights, sum(weight * dilation) / sum(weight); h x w."""
        assert self.scale is not None
        dilations = np.asarray(self.dilations, np.float32)[:, None, None]
        return (self.scale * dilations).sum(axis=0) / self.scale.sum(axis=0)

    @property
    def mean_weight(self) -> np.ndarray:
        """The mean weight of the branches, h x w: where it is high, the block works."""
        assert self.scale is not None
        return self.scale.mean(axis=0)


def attention_of(
    model: ImageNetwork, image: np.ndarray, left: np.ndarray | None = None, right: np.ndarray | None = None
) -> tuple[np.ndarray, list[BlockAttention]]:
    """Restores an image in one pass, and records the attention of each block.

        restored, blocks = attention_of(kpac.load_model("runs/quickstart"), image)
        plt.imshow(blocks[0].expected_dilation)

    Args:
        model: a KPACNet.
        image, left, right: see `kpac.Restorer`.

    Returns:
        The restored image, H x W x 3 in [0, 1], and one entry per KPAC block.

    Raises:
        UserError: the network has no KPAC blocks.
    """
    blocks = kpac_blocks(model)
    if not blocks:
        raise UserError(f"network '{model.config['name']}' has no KPAC blocks")
    with outputs_of(attention for block in blocks for attention in block.attentions()) as outputs:
        restored = Restorer(model, tile=None, precision="float32", device=_device(model))(image, left, right)
    weights = {attention: values[0].float().cpu() for attention, values in outputs.items()}
    return restored, [_attention(block, weights) for block in blocks]


def kpac_blocks(model: ImageNetwork) -> list[KPACBlock]:
    """The KPAC blocks of a network, first to last; empty for a network of another kind."""
    return [module for module in model.modules() if isinstance(module, KPACBlock)]


def rank_correlation(values: np.ndarray, blur_radius: np.ndarray) -> float:
    """Spearman's rank correlation of a block's attention with the true circle of confusion.

    Args:
        values: the expected dilation or the mean weight, h x w.
        blur_radius: H x W in pixels, with signs, as `kpac data synthesize` writes it. Its absolute value is averaged
            over the pixels of each of the block's positions.

    Returns:
        -1 to 1; NaN if the values or the blur are the same everywhere.
    """
    true = reduce_to(np.abs(blur_radius), values.shape)
    if np.ptp(values) == 0 or np.ptp(true) == 0:
        return float("nan")
    return float(stats.spearmanr(values.ravel(), true.ravel()).statistic)


def pixels_per_position(image: tuple[int, ...], features: tuple[int, ...]) -> int:
    """Side of a feature position in pixels, from both heights and widths: a power of 2, since encoders halve sizes."""
    ratio = max(-(-pixels // positions) for pixels, positions in zip(image, features, strict=True))
    return 1 << (ratio - 1).bit_length()


def reduce_to(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Averages values over the pixels of each feature position; the last row and column may extend beyond the image."""
    (height, width), factor = values.shape, pixels_per_position(values.shape, size)
    padded = np.pad(values, ((0, size[0] * factor - height), (0, size[1] * factor - width)), mode="edge")
    return padded.reshape(size[0], factor, size[1], factor).mean(axis=(1, 3))


def _attention(block: KPACBlock, weights: dict[nn.Module, Tensor]) -> BlockAttention:
    scale = weights[block.scale_attention].numpy() if block.scale_attention else None
    shape = weights[block.shape_attention].mean(dim=(1, 2)).numpy() if block.shape_attention else None
    return BlockAttention(block.dilations, scale, shape)


def _device(model: ImageNetwork) -> str:
    return next(model.parameters()).device.type
