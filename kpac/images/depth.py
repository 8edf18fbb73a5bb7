"""Conversions between integer and float pixels, and between bit depths of 8 and 16."""

from typing import Literal

import numpy as np

BitDepth = Literal[8, 16]
ROWS = 64  # rows converted at a time: a float64 copy of 200 megapixels would take 5 GB


def bits(pixels: np.ndarray) -> BitDepth:
    """Bit depth of integer pixels: 8 for uint8, 16 for uint16."""
    return 8 if pixels.dtype == np.uint8 else 16


def to_float(pixels: np.ndarray) -> np.ndarray:
    """Converts integers to float32 in [0, 1]: v / 255 or v / 65535."""
    top = np.float32(np.iinfo(pixels.dtype).max)
    return np.divide(pixels, top, dtype=np.float32)


def from_float(image: np.ndarray, bit_depth: BitDepth) -> np.ndarray:
    """Converts [0, 1] to integers, clamped and rounded to the nearest; inverts `to_float` exactly."""
    dtype = np.uint8 if bit_depth == 8 else np.uint16
    top = np.iinfo(dtype).max
    pixels = np.empty(image.shape, dtype)
    for start in range(0, len(image), ROWS):
        rows = image[start : start + ROWS].astype(np.float64)
        pixels[start : start + ROWS] = np.rint(np.clip(rows, 0, 1) * top)
    return pixels


def full_range(values: np.ndarray, depth: int) -> np.ndarray:
    """Scales integers of 1 to 16 bits to the full range of uint8 or uint16: the largest becomes 255 or 65535.

    Args:
        values: integers from 0 to 2 ** depth - 1.
        depth: bits per value; up to 8 give uint8, more give uint16.
    """
    dtype = np.uint8 if depth <= 8 else np.uint16
    if depth in (8, 16):
        return values.astype(dtype, copy=False)
    count = 1 << depth
    table = np.rint(np.arange(count) * (np.iinfo(dtype).max / (count - 1))).astype(dtype)
    return looked_up(values, table)


def looked_up(indices: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Computes `table[indices]` without NumPy's copy of all indices as 64-bit integers.

    Shape: H x ... integers and N x ... -> H x ... x ...
    """
    result = np.empty(indices.shape + table.shape[1:], table.dtype)
    for start in range(0, len(indices), ROWS):
        result[start : start + ROWS] = table[indices[start : start + ROWS].astype(np.intp)]
    return result


def at_bit_depth(pixels: np.ndarray, file_format: str, bit_depth: BitDepth | None) -> np.ndarray:
    """Converts pixels to another bit depth as OpenCV's default reading does; the field's evaluations use that.

    From 16 bits to 8, takes the upper byte for PNG, and round(v / 257) for every other format. From 8 bits to 16,
    multiplies by 257.

    Args:
        pixels: H x W x C, uint8 or uint16.
        file_format: format of the file that they were read from, such as "PNG".
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
    """Divides premultiplied colors by alpha, the last channel; keeps them where alpha is 0.

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
