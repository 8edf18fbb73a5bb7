"""Moved to `kpac.images`."""

from kpac.images import BitDepth, at_depth, bits, from_float, list_images, read_pixels, to_float, write_pixels

__all__ = ["BitDepth", "at_depth", "bits", "from_float", "list_images", "read_pixels", "to_float", "write_pixels"]
