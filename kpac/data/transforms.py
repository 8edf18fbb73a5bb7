"""One random draw, applied alike to all views and the target."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from kpac.config import AugmentConfig
from kpac.data.images import to_float

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


@dataclass(frozen=True)
class Transform:
    """Where a training crop lies and what happens to it.

    Args:
        top, left: its first row and column, in pixels of the image.
        region: side of the square that is cut out of the image.
        size: side of the crop; a larger region is reduced to it, each pixel the mean of the area that it covers.
        mirror: whether it is mirrored left to right.
        flip: whether it is mirrored top to bottom.
        turned: whether it is turned by 90 degrees, counter-clockwise, after the mirroring.
        gray: whether its three channels become their luma.
        noise: deviation of the Gaussian noise on the inputs, 1 being the largest value.
        noise_seed: fixes the noise.
    """

    top: int
    left: int
    region: int
    size: int
    mirror: bool = False
    flip: bool = False
    turned: bool = False
    gray: bool = False
    noise: float = 0.0
    noise_seed: int = 0

    @staticmethod
    def draw(height: int, width: int, size: int, augment: AugmentConfig, generator: np.random.Generator) -> "Transform":
        """A crop anywhere in a height x width image, treated as the configuration says.

        Every number is drawn whether it is used or not: switching one augmentation on leaves the others as they were.
        """
        happens = dict(zip(("scale", "gray", "noise", "mirror", "flip", "turn"), generator.random(6), strict=True))
        factor, vertical, horizontal = generator.random(3)
        region = size
        if augment.scale and happens["scale"] < augment.scale.probability:
            low, high = augment.scale.range
            region = min(round(size / (low + (high - low) * factor)), height, width)
        return Transform(
            top=int(vertical * (height - region + 1)),
            left=int(horizontal * (width - region + 1)),
            region=region,
            size=size,
            mirror=bool(augment.flip and happens["mirror"] < 0.5),
            flip=bool(augment.flip and happens["flip"] < 0.5),
            turned=bool(augment.rotate and happens["turn"] < 0.5),
            gray=bool(happens["gray"] < augment.gray),
            noise=augment.noise.deviation if augment.noise and happens["noise"] < augment.noise.probability else 0.0,
            noise_seed=int(generator.integers(1 << 62)),
        )

    def apply(self, image: np.ndarray) -> np.ndarray:
        """The crop of a view or of the target, without noise.

        Shape: H x W x 3 integers -> size x size x 3, float32 in [0, 1].
        """
        crop = to_float(image[self.top : self.top + self.region, self.left : self.left + self.region])
        if self.region != self.size:
            crop = cv2.resize(crop, (self.size, self.size), interpolation=cv2.INTER_AREA)
        if self.gray:
            crop = np.repeat((crop @ LUMA)[..., None], 3, axis=2)
        crop = crop[:: -1 if self.flip else 1, :: -1 if self.mirror else 1]
        return np.rot90(crop) if self.turned else crop

    def apply_to_inputs(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The crops of all views, each with noise of its own.

        Shape: as `apply`, for each image.
        """
        crops = [self.apply(image) for image in images]
        if not self.noise:
            return crops
        generator = np.random.default_rng(self.noise_seed)
        noises = (generator.standard_normal(crop.shape, dtype=np.float32) for crop in crops)
        return [np.clip(crop + np.float32(self.noise) * noise, 0, 1) for crop, noise in zip(crops, noises, strict=True)]

    def order(self, views: Sequence[str], height: int, width: int) -> list[str]:
        """Which view to read in the place of each.

        Mirrored along the line that divides the aperture's halves, the left half becomes the right one. The halves
        lie side by side along the sensor's longer side: in a portrait photograph, above each other.

        Args:
            views: the names, in the network's order.
            height, width: of the whole image.
        """
        other = {"left": "right", "right": "left"}
        exchanged = self.flip if height > width else self.mirror
        return [other.get(view, view) if exchanged else view for view in views]
