"""What an image file says of itself before it is decoded."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ImageHeader:
    """Facts from a file's header.

    Args:
        width, height: in pixels, before the EXIF orientation is applied.
        bit_depth: of one channel.
        gray: whether it has one channel of colour.
        alpha: whether it has a channel of transparency.
    """

    width: int
    height: int
    bit_depth: int
    gray: bool
    alpha: bool

    @property
    def decoded_bytes(self) -> int:
        """Bytes of the decoded pixels, H x W x 3."""
        return self.width * self.height * 3 * (2 if self.bit_depth > 8 else 1)

    @property
    def memory_bytes(self) -> int:
        """About what reading takes at the most: the channels as they are stored, twice, and the decoded pixels, twice.

        Measured at 6 and 196 megapixels: 0.3 to 0.9 of that, most for JPEG and for floats in a TIFF.
        """
        channels = (1 if self.gray else 3) + self.alpha
        stored = self.width * self.height * channels * max(1, -(-self.bit_depth // 8))
        return 2 * stored + 2 * self.decoded_bytes
