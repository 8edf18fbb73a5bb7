"""Data of a page as scripts.

A page that is opened from disk may show an image file, but a browser then lets no script read its pixels, nor any other
file. A script it does load. So images and numbers lie in scripts that call `kpac.receive`.
"""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kpac.files import atomic_write, dump_json

WEBP_SIDE = 16383  # pixels, the largest that the format has


def encode(pixels: np.ndarray) -> tuple[str, bytes]:
    """An image without loss: its MIME type and its file.

    WebP's fastest setting: measured on frames of 1680x1120, 0.07 s and 2.7 MB, where PNG takes 0.17 s and 3.3 MB.

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
    """Writes FOLDER/KEY.js with an image, and what else a script needs to know about it."""
    kind, content = encode(pixels)
    write_data(folder, key, {**facts, "type": kind, "data": base64.b64encode(content).decode("ascii")})


def write_thumbnail(path: Path, pixels: np.ndarray) -> None:
    """Writes a small image with loss, only to be looked at."""
    with atomic_write(path) as partial:
        Image.fromarray(pixels).save(partial, "WEBP", quality=80)


def write_data(folder: Path, key: str, value: Any) -> None:
    """Writes FOLDER/KEY.js, which hands a value to the page under its key."""
    text = f"kpac.receive({dump_json(key)}, {dump_json(value)});\n"
    with atomic_write(folder / f"{key}.js") as partial:
        partial.write_text(text, encoding="utf-8")
