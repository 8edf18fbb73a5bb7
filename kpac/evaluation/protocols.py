"""Protocols: everything that fixes an evaluation number, under a name that is printed beside it."""

from dataclasses import dataclass

from kpac.config import nearest
from kpac.data.images import BitDepth
from kpac.errors import UserError


@dataclass(frozen=True)
class Protocol:
    """How images become numbers.

    Metrics compare float images in [0, 1] (data range 1) at full size: PSNR and MAE over all pixels and channels, SSIM
    with scikit-image's defaults (7x7 uniform window, sample covariance, per channel). Means are over images.

    Args:
        name: printed beside every number.
        bit_depth: at which inputs and targets are read. 8 reads 16-bit files the way OpenCV's default does.
        source: who computes numbers this way.
    """

    name: str
    bit_depth: BitDepth
    source: str

    def summary(self) -> str:
        """One sentence for a report."""
        return (
            f"`{self.name}`: inputs and targets read as {self.bit_depth} bits, output clamped to [0, 1], not rounded, "
            f"full size, metrics on float images in [0, 1], mean over images; as in {self.source}"
        )


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol("dpdd-8bit", 8, "KPAC, IFAN and Restormer's single-image row"),
        Protocol("dpdd-16bit", 16, "DPDNet and Restormer's dual-pixel row"),
    )
}


def find_protocol(name: str) -> Protocol:
    """The protocol of a name.

    Raises:
        UserError: no protocol has that name; the nearest one is given.
    """
    if name not in PROTOCOLS:
        raise UserError(f"no protocol is called '{name}'{nearest(name, PROTOCOLS)}")
    return PROTOCOLS[name]
