"""Attention of the KPAC blocks for one image: scale-attention maps, the expected dilation, and shape attention."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats

from kpac.errors import UserError
from kpac.models.interface import ImageNetwork
from kpac.models.kpac import KPACBlock
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
    inputs: list[torch.Tensor] = []
    hooks = [block.register_forward_pre_hook(lambda _, given: inputs.append(given[0])) for block in blocks]
    try:
        restored = Restorer(model, tile=None, precision="float32", device=_device(model))(image, left, right)
    finally:
        for hook in hooks:
            hook.remove()
    with torch.inference_mode():
        return restored, [_attend(block, x) for block, x in zip(blocks, inputs, strict=True)]


def has_kpac_blocks(model: ImageNetwork) -> bool:
    """Whether a network has KPAC blocks."""
    return any(isinstance(module, KPACBlock) for module in model.modules())


def kpac_blocks(model: ImageNetwork) -> list[KPACBlock]:
    """The KPAC blocks of a network, first to last.

    Raises:
        UserError: it has none.
    """
    blocks = [module for module in model.modules() if isinstance(module, KPACBlock)]
    if not blocks:
        raise UserError(f"network '{model.config['name']}' has no KPAC blocks")
    return blocks


def rank_correlation(attention: BlockAttention, blur_radius: np.ndarray) -> float:
    """Spearman's rank correlation of the expected dilation with the true circle of confusion.

    Args:
        attention: attention of a block with scale attention.
        blur_radius: H x W in pixels, with signs, as `kpac data synthesize` writes it. Its absolute value is averaged
            over the pixels of each of the block's positions.

    Returns:
        -1 to 1; NaN if the expected dilation or the blur is the same everywhere.
    """
    expected = attention.expected_dilation
    true = reduce_to(np.abs(blur_radius), expected.shape)
    if np.ptp(expected) == 0 or np.ptp(true) == 0:
        return float("nan")
    return float(stats.spearmanr(expected.ravel(), true.ravel()).statistic)


def reduce_to(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Averages values over the pixels of each feature position; the last row and column may extend beyond the image."""
    height, width = values.shape
    factor = max(-(-height // size[0]), -(-width // size[1]))
    factor = 1 << (factor - 1).bit_length()  # an encoder halves the size, so the factor is a power of 2
    padded = np.pad(values, ((0, size[0] * factor - height), (0, size[1] * factor - width)), mode="edge")
    return padded.reshape(size[0], factor, size[1], factor).mean(axis=(1, 3))


def _attend(block: KPACBlock, x: torch.Tensor) -> BlockAttention:
    scale = shape = None
    if block.scale_attention is not None:
        scale = block.scale_attention(x)[0].float().cpu().numpy()
    if block.shape_attention is not None:
        shape = block.shape_attention(x)[0].float().mean(dim=(1, 2)).cpu().numpy()
    return BlockAttention(block.dilations, scale, shape)


def _device(model: ImageNetwork) -> str:
    return next(model.parameters()).device.type
