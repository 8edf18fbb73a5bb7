"""Settings of synthetic data: the camera and the scenes."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from kpac.config import Section, validate

PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]


class SynthesisSettings(Section):
    """What is rendered and how; lengths carry their unit in their name."""

    scenes: Annotated[int, Field(ge=1)] | None = None
    """Scenes in all, spread evenly over the photographs; each has its own plane in focus and, where no depth is given,
    its own depth; by default two of each photograph."""
    size: Annotated[int, Field(ge=16)] = 768
    """Reduce photographs whose longest side has more pixels than this, by area averaging."""
    focal_length_mm: PositiveFloat = 50.0
    """Focal length of the lens, in millimetres."""
    f_number: PositiveFloat = 2.0
    """Focal length over the aperture's diameter."""
    sensor_width_mm: PositiveFloat = 36.0
    """Width of the sensor, which the image's longest side fills."""
    focus_distance_m: PositiveFloat | None = None
    """Distance of the plane in focus, the same in every scene; by default that of a random pixel."""
    near_m: PositiveFloat = 1.0
    """Nearest distance of random depth maps."""
    far_m: PositiveFloat = 10.0
    """Farthest distance of random depth maps."""
    aperture_blades: Annotated[int, Field(ge=0)] = 0
    """Straight sides of the aperture, 3 or more; 0 for a disc."""
    full_well_electrons: NonNegativeFloat = 60000.0
    """Electrons of a full pixel, which set the photon noise; 0 for no noise at all."""
    read_noise_electrons: NonNegativeFloat = 3.0
    """Deviation of the read-out."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Fixes every random draw."""

    @model_validator(mode="after")
    def _check(self) -> "SynthesisSettings":
        if self.near_m >= self.far_m:
            raise ValueError(f"near_m ({self.near_m:g}) should be less than far_m ({self.far_m:g})")
        if self.aperture_blades in (1, 2):
            raise ValueError(f"aperture_blades should be 0 or at least 3, found {self.aperture_blades}")
        return self

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> "SynthesisSettings":
        """The settings among a command's options, checked.

        Raises:
            UserError: a value has the wrong type or range.
        """
        return validate(cls, {name: value for name, value in options.items() if name in cls.model_fields}, [])
