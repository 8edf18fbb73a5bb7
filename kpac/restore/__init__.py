"""Restoring photographs: exact tiling, files with all they carry, export."""
