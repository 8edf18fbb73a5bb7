"""Restoring photographs: images in memory, files, exact tiling and export."""
