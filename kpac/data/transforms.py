"""Random augmentation, drawn once per crop and applied to all views and the target."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from kpac.config import AugmentConfig
from kpac.images import to_float

LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)  # ITU-R BT.709
OTHER_SIDE = {"left": "right", "right": "left"}


@dataclass(frozen=True)
class Augmentation:
    """The random choices for one training crop, applied to each image of the scene."""

    top: int  # first row of the region that is cut out of the image, in pixels
    left: int  # its first column
    region: int  # side of the region, in pixels
    size: int  # side of the resulting crop, in pixels; less than `region` if the image is scaled
    mirror: bool = False  # whether the crop is mirrored left to right
    flip: bool = False  # whether the crop is mirrored top to bottom
    quarter_turns: int = 0  # counter-clockwise turns by 90 degrees, 0 to 3, after the mirroring
    gray: bool = False  # whether the crop is converted to gray
    deviation: float = 0.0  # standard deviation of the noise on the views; 0 for none
    noise_seed: int = 0  # seed of the noise

    @staticmethod
    def draw(
        height: int, width: int, size: int, augment: AugmentConfig, generator: np.random.Generator
    ) -> "Augmentation":
        """Draws a crop at a random place of a height x width image, with the configured augmentations.

        Args:
            height, width: size of the image in pixels, each at least `size`.
            size: side of the crop in pixels.
            augment: the augmentations and their probabilities.
            generator: source of the draws. It always draws the same count of numbers, so that turning one augmentation
                on does not change the draws of the others.
        """
        top, left, mirror, flip, turn, scaled, scale, gray, noisy, deviation = generator.random(10)
        noise_seed = int(generator.integers(2**63))
        region = size
        if augment.scale and scaled < augment.scale.probability:
            region = min(round(size / _between(augment.scale.range, scale)), height, width)
        noise = augment.noise
        return Augmentation(
            top=int(top * (height - region + 1)),
            left=int(left * (width - region + 1)),
            region=region,
            size=size,
            mirror=augment.flip and bool(mirror < 0.5),
            flip=augment.flip and bool(flip < 0.5),
            quarter_turns=int(turn * 4) if augment.rotate else 0,
            gray=bool(gray < augment.gray),
            deviation=_between(noise.deviation, deviation) if noise and noisy < noise.probability else 0.0,
            noise_seed=noise_seed,
        )

    def order(self, views: Sequence[str], height: int, width: int) -> list[str]:
        """The views to read, in order: left and right are swapped if the augmentation swaps the aperture's halves.

        The halves of the aperture lie along the sensor's longer side: side by side, or one above the other in a
        portrait photograph. Mirroring along that side swaps the halves, and so does a rotation by 180 degrees; both
        together do not.

        Args:
            views: names of the views.
            height, width: size of the whole image.
        """
        mirrored = self.flip if height > width else self.mirror
        exchanged = mirrored != (self.quarter_turns == 2)
        return [OTHER_SIDE.get(view, view) if exchanged else view for view in views]

    def view(self, pixels: np.ndarray, index: int) -> np.ndarray:
        """Applies the augmentation to one view: cuts it, adds noise, and converts it to gray.

        Noise is added after scaling, which would reduce it, and before the conversion to gray, so that a gray view has
        three equal channels.

        Args:
            pixels: H x W x 3, uint8 or uint16; only the region is touched.
            index: the view's place among the views; each has independent noise.

        Returns:
            size x size x 3: the file's integers if no new values were computed, otherwise float32 in [0, 1].
        """
        image = self.cut(pixels)
        if self.deviation:
            image = as_float(image)
            generator = np.random.default_rng((self.noise_seed, index))
            noise = generator.standard_normal(image.shape, dtype=np.float32)
            image = np.clip(image + np.float32(self.deviation) * noise, 0, 1)
        return _to_gray(image) if self.gray else image

    def target(self, pixels: np.ndarray) -> np.ndarray:
        """Applies the augmentation to the target: as for the views, without noise; shape and type as in `view`."""
        image = self.cut(pixels)
        return _to_gray(image) if self.gray else image

    def cut(self, pixels: np.ndarray) -> np.ndarray:
        """Applies only the geometric part: cut, scaled by area, mirrored and turned; shape and type as in `view`."""
        image = pixels[self.top : self.top + self.region, self.left : self.left + self.region]
        if self.region != self.size:
            image = cv2.resize(to_float(image), (self.size, self.size), interpolation=cv2.INTER_AREA)
            np.minimum(image, 1, out=image)  # the weights of area scaling sum to 1 only up to rounding
        return np.rot90(image[:: -1 if self.flip else 1, :: -1 if self.mirror else 1], self.quarter_turns)


def _between(bounds: tuple[float, float], fraction: float) -> float:
    low, high = bounds
    return float(low + fraction * (high - low))


def as_float(image: np.ndarray) -> np.ndarray:
    """Converts integers to float32 in [0, 1]; returns floats unchanged."""
    return image if image.dtype == np.float32 else to_float(image)


def _to_gray(image: np.ndarray) -> np.ndarray:
    return np.repeat(np.minimum(as_float(image) @ LUMA, 1)[..., None], 3, axis=-1)
