"""Writes a page's data as scripts.

Scripts of a page that is opened from disk may not read other files, nor the pixels of an image file; but the page may
load other scripts. So images and numbers are stored in scripts that call `kpac.receive`.
"""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kpac.files import atomic_write, dump_json, write_text

WEBP_SIDE = 16383  # longest side of a WebP image, in pixels


def encode(pixels: np.ndarray) -> tuple[str, bytes]:
    """Encodes an image without loss; returns the MIME type and the file's bytes.

    Uses WebP's fastest setting: a frame of 1680x1120 takes 0.07 s and 2.7 MB; as PNG it would take 0.17 s and 3.3 MB.

    Args:
        pixels: uint8, H x W x 3 or H x W.
    """
    image, buffer = Image.fromarray(np.ascontiguousarray(pixels)), io.BytesIO()
    if max(image.size) > WEBP_SIDE:
        image.save(buffer, "PNG", compress_level=3)
        return "image/png", buffer.getvalue()
    image.save(buffer, "WEBP", lossless=True, quality=0, method=0)
    return "image/webp", buffer.getvalue()


def write_image(folder: Path, key: str, pixels: np.ndarray, facts: dict[str, Any]) -> None:
    """Writes FOLDER/KEY.js with an image and facts about it for the page's scripts."""
    kind, content = encode(pixels)
    write_data(folder, key, {**facts, "type": kind, "data": base64.b64encode(content).decode("ascii")})


def write_thumbnail(path: Path, pixels: np.ndarray) -> None:
    """Writes a small image as lossy WebP."""
    with atomic_write(path) as partial:
        Image.fromarray(pixels).save(partial, "WEBP", quality=80)


def write_data(folder: Path, key: str, value: Any) -> None:
    """Writes FOLDER/KEY.js, which passes `value` to the page under `key`."""
    write_text(folder / f"{key}.js", f"kpac.receive({dump_json(key)}, {dump_json(value)});\n")
