"""Reads and writes photographs: formats, bit depth, color, orientation, metadata.

In memory an image is float32 RGB in [0, 1], H x W x 3; on disk it keeps its own bit depth, 8 or 16.
"""

from kpac.images.depth import BitDepth as BitDepth
from kpac.images.depth import bits as bits
from kpac.images.depth import from_float as from_float
from kpac.images.depth import to_float as to_float
from kpac.images.folder import left_out as left_out
from kpac.images.folder import left_out_text as left_out_text
from kpac.images.folder import list_images as list_images
from kpac.images.folder import say_left_out as say_left_out
from kpac.images.header import ImageHeader as ImageHeader
from kpac.images.kinds import SUFFIXES as SUFFIXES
from kpac.images.kinds import can_write as can_write
from kpac.images.kinds import is_of_a_photograph as is_of_a_photograph
from kpac.images.photograph import Photograph as Photograph
from kpac.images.reading import READER_VERSION as READER_VERSION
from kpac.images.reading import at_depth as at_depth
from kpac.images.reading import read_header as read_header
from kpac.images.reading import read_photograph as read_photograph
from kpac.images.reading import read_pixels as read_pixels
from kpac.images.writing import write_pixels as write_pixels
