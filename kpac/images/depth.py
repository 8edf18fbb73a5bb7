"""Integer and float pixels, and the two bit depths they are kept at."""

from typing import Literal

import numpy as np

BitDepth = Literal[8, 16]
ROWS = 64  # converted at a time: a float64 copy of 200 megapixels would take 5 GB


def bits(pixels: np.ndarray) -> BitDepth:
    """Bit depth of integer pixels: 8 for uint8, 16 for uint16."""
    return 8 if pixels.dtype == np.uint8 else 16


def to_float(pixels: np.ndarray) -> np.ndarray:
    """Integers to float32 in [0, 1]: v / 255 or v / 65535."""
    top = np.float32(np.iinfo(pixels.dtype).max)
    return np.divide(pixels, top, dtype=np.float32)


def from_float(image: np.ndarray, bit_depth: BitDepth) -> np.ndarray:
    """[0, 1] to integers, clamped and rounded to the nearest; the inverse of `to_float` on what it gave."""
    dtype = np.uint8 if bit_depth == 8 else np.uint16
    top = np.iinfo(dtype).max
    pixels = np.empty(image.shape, dtype)
    for start in range(0, len(image), ROWS):
        rows = image[start : start + ROWS].astype(np.float64)
        pixels[start : start + ROWS] = np.rint(np.clip(rows, 0, 1) * top)
    return pixels


def full_range(values: np.ndarray, depth: int) -> np.ndarray:
    """Integers of 1 to 16 bits as uint8 or uint16 that use the whole range: the largest value becomes 255 or 65535.

    Args:
        values: from 0 to 2 ** depth - 1.
        depth: bits of a value; up to 8 give uint8.
    """
    dtype = np.uint8 if depth <= 8 else np.uint16
    if depth in (8, 16):
        return values.astype(dtype, copy=False)
    count = 1 << depth
    table = np.rint(np.arange(count) * (np.iinfo(dtype).max / (count - 1))).astype(dtype)
    return looked_up(values, table)


def looked_up(indices: np.ndarray, table: np.ndarray) -> np.ndarray:
    """`table[indices]`, without the copy of all indices as 64-bit integers that NumPy makes.

    Shape: H x ... integers and N x ... -> H x ... x ...
    """
    result = np.empty(indices.shape + table.shape[1:], table.dtype)
    for start in range(0, len(indices), ROWS):
        result[start : start + ROWS] = table[indices[start : start + ROWS].astype(np.intp)]
    return result


def at_bit_depth(pixels: np.ndarray, file_format: str, bit_depth: BitDepth | None) -> np.ndarray:
    """Pixels at another bit depth, as OpenCV's default reading gives them, which the field's evaluations use.

    16 bits become 8 as the upper byte for PNG, and as round(v / 257) for every other format. 8 bits become 16 as
    v * 257.

    Args:
        pixels: H x W x C, uint8 or uint16.
        file_format: of the file that they were read from, such as "PNG".
        bit_depth: None keeps the pixels' own.
    """
    if bit_depth == 8 and pixels.dtype == np.uint16:
        if file_format == "PNG":
            return (pixels >> 8).astype(np.uint8)
        return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if bit_depth == 16 and pixels.dtype == np.uint8:
        return pixels.astype(np.uint16) * np.uint16(257)
    return pixels


def unmultiplied(channels: np.ndarray) -> np.ndarray:
    """Colours that were multiplied by the last channel, alpha, as they were before; where alpha is 0 they stay.

    Shape: H x W x C integers -> the same.
    """
    top = np.iinfo(channels.dtype).max
    result = channels.copy()
    for start in range(0, len(channels), ROWS):
        rows = channels[start : start + ROWS].astype(np.uint64)
        colour, alpha = rows[..., :-1], rows[..., -1:]
        straight = np.minimum((colour * top + alpha // 2) // np.maximum(alpha, 1), top)
        result[start : start + ROWS, :, :-1] = np.where(alpha > 0, straight, colour)
    return result
