"""Reads and writes photographs: formats, bit depth, color, orientation, metadata.

In memory an image is float32 RGB in [0, 1], H x W x 3; on disk it keeps its own bit depth, 8 or 16.
"""

from kpac.images.depth import BitDepth, bits, from_float, to_float
from kpac.images.folder import left_out, left_out_text, list_images, say_left_out
from kpac.images.header import ImageHeader
from kpac.images.kinds import RAW_SUFFIXES, SUFFIXES, can_write, is_of_a_photograph
from kpac.images.photograph import Photograph
from kpac.images.reading import READER_VERSION, at_depth, read_header, read_photograph, read_pixels
from kpac.images.writing import write_pixels

__all__ = [
    "RAW_SUFFIXES",
    "READER_VERSION",
    "SUFFIXES",
    "BitDepth",
    "ImageHeader",
    "Photograph",
    "at_depth",
    "bits",
    "can_write",
    "from_float",
    "is_of_a_photograph",
    "left_out",
    "left_out_text",
    "list_images",
    "read_header",
    "read_photograph",
    "read_pixels",
    "say_left_out",
    "to_float",
    "write_pixels",
]
