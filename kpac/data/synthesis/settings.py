"""Settings of synthetic data: the scene, the lens, the sensor, and recipes that name a set of them."""

import math
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from kpac.config import Section, nearest, read_yaml, validate
from kpac.errors import UserError

DepthKind = Literal["waves", "planes", "objects", "segments"]


Range = tuple[float, float]


def _range(limits: str, fits: Callable[[float], bool]) -> BeforeValidator:
    """Validator of a range: [low, high], LOW:HIGH, or one number for both bounds.

    Args:
        limits: the valid bounds in words, for the message.
        fits: whether a bound is valid.
    """

    def parse(value: Any) -> tuple[float, float]:
        parts = value.split(":") if isinstance(value, str) else value if isinstance(value, list | tuple) else [value]
        try:
            bounds = [float(part) for part in parts if not isinstance(part, bool)]
        except (TypeError, ValueError):
            bounds = []
        if len(bounds) not in (1, 2) or len(bounds) != len(parts) or not all(map(fits, bounds)):
            raise ValueError(f"should be a number {limits}, or a range LOW:HIGH of such numbers")
        if bounds[0] > bounds[-1]:
            raise ValueError("should have its smaller value first")
        return bounds[0], bounds[-1]

    return BeforeValidator(parse)


Positive = _range("above 0", lambda value: 0 < value < math.inf)
NonNegative = _range("of 0 or more", lambda value: 0 <= value < math.inf)
Fraction = _range("from 0 to 1", lambda value: 0 <= value <= 1)
Signed = _range("from -1 to 1", lambda value: -1 <= value <= 1)
Quality = _range("from 1 to 100", lambda value: 1 <= value <= 100)
Multiple = _range("of 1 or more", lambda value: 1 <= value < math.inf)


def _shapes(choices: tuple[int, ...]) -> tuple[int, ...]:
    for blades in choices:
        if blades < 0 or blades in (1, 2):
            raise ValueError("should be 0 or at least 3 each")
    return choices


def _as_choices(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(value.split(":"))
    return value if isinstance(value, list | tuple) else (value,)


def _some_weight(weights: dict[str, float]) -> dict[str, float]:
    if sum(weights.values()) <= 0:
        raise ValueError("should have a weight above 0 for at least one kind")
    return weights


class SynthesisSettings(Section):
    """What is rendered and how. Lengths carry their unit in their name.

    For a range (LOW:HIGH on the command line, [low, high] in a recipe), a value is drawn for every scene; a single
    number is constant. Lengths and f-numbers are drawn uniformly in their logarithm.
    """

    scenes: Annotated[int, Field(ge=1)] | None = None
    """Total number of scenes, divided evenly among the photographs; by default two per photograph. Each scene has its
    own plane in focus and, if no depth map is given, its own random depth."""
    size: Annotated[int, Field(ge=16)] = 768
    """Longest side in pixels; larger photographs are reduced by area averaging."""
    views: Literal["dual", "center"] = "dual"
    """dual: center, left and right views; center: the center view alone, in half the time."""

    depth_maps: Annotated[dict[DepthKind, Annotated[float, Field(ge=0)]], AfterValidator(_some_weight)] = {"waves": 1.0}
    """Kinds of random depth maps and how often each is drawn: waves (smooth), planes (one slanted plane), objects
    (polygons, discs and bars over a slanted plane), segments (regions of the photograph, each at its own depth)."""
    near_m: Annotated[Range, Positive] = (1.0, 1.0)
    """Nearest distance of random depth maps."""
    far_m: Annotated[Range, Positive] = (10.0, 10.0)
    """Farthest distance of random depth maps."""
    focus_distance_m: Annotated[Range, Positive] | None = None
    """Distance of the plane in focus; by default the distance of a random pixel."""
    focus_on_scene: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the scenes that are focused on a random pixel; the others are focused anywhere between the nearest and
    the farthest distance."""

    focal_length_mm: Annotated[Range, Positive] = (50.0, 50.0)
    """Focal length of the lens, in millimetres."""
    f_number: Annotated[Range, Positive] = (2.0, 2.0)
    """Focal length over the aperture's diameter."""
    sensor_width_mm: Annotated[Range, Positive] = (36.0, 36.0)
    """Width of the sensor, which the image's longest side fills."""
    aperture_blades: Annotated[tuple[int, ...], BeforeValidator(_as_choices), AfterValidator(_shapes)] = (0,)
    """Number of straight sides of the aperture, 3 or more; 0 for a disc. From several, one is drawn per scene."""
    aperture_rotation: Annotated[Range, Fraction] = (0.0, 0.0)
    """Rotation of the aperture's polygon, as a fraction of the angle of one side."""
    aperture_rim: Annotated[Range, Signed] = (0.0, 0.0)
    """Spherical aberration: 0 for even blur discs. Above 0, discs behind the plane in focus are brighter at the rim,
    discs in front of it in the middle; below 0, the reverse."""
    cat_eye: Annotated[Range, Fraction] = (0.0, 0.0)
    """Mechanical vignetting: distance between the two circles that bound the pupil, as a fraction of its diameter, in
    a random direction."""
    lens_blur_px: Annotated[Range, NonNegative] = (0.0, 0.0)
    """Standard deviation of the lens's Gaussian blur, also in focus, in pixels."""

    contrast: Annotated[Range, Fraction] = (0.0, 0.0)
    """Strength of the camera's S-shaped tone curve: 0 for sRGB only, 1 for a smoothstep."""
    highlights: Annotated[Range, Multiple] = (1.0, 1.0)
    """Brightness of white pixels of the photograph, in multiples of white, so that blurred lights stay bright."""
    full_well_electrons: Annotated[Range, NonNegative] = (60000.0, 60000.0)
    """Electrons of a full pixel, which set the photon noise; 0 for no noise at all."""
    read_noise_electrons: Annotated[Range, NonNegative] = (3.0, 3.0)
    """Standard deviation of the read noise."""
    jpeg_quality: Annotated[Range, Quality] | None = None
    """Compresses the input views as JPEG of this quality; by default they are not compressed."""
    jpeg_share: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the scenes that are compressed."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of all random draws."""

    @model_validator(mode="after")
    def _check(self) -> "SynthesisSettings":
        if self.near_m[1] >= self.far_m[0]:
            raise ValueError(f"near_m ({_text(self.near_m)}) should be less than far_m ({_text(self.far_m)})")
        return self

    @classmethod
    def from_options(cls, options: dict[str, Any], recipe: str | None = None) -> "SynthesisSettings":
        """Builds checked settings from a command's options, which override those of a recipe.

        Args:
            options: option names and values; names that are not settings are ignored.
            recipe: a name from `recipe_names`, or a YAML file.

        Raises:
            UserError: there is no such recipe, it has an unknown key, or a value has the wrong type or range.
        """
        given = {name: value for name, value in options.items() if name in cls.model_fields}
        return validate(cls, {**(read_recipe(recipe) if recipe else {}), **given}, [])


def _text(bounds: tuple[float, float]) -> str:
    return f"{bounds[0]:g}" if bounds[0] == bounds[1] else f"{bounds[0]:g} to {bounds[1]:g}"


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package, sorted."""
    folder = resources.files("kpac.data.synthesis") / "recipes"
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def read_recipe(recipe: str) -> dict[str, Any]:
    """Reads the settings in a recipe's YAML, unchecked.

    Args:
        recipe: a name from `recipe_names`, or a YAML file.

    Raises:
        UserError: there is no such recipe, or its file is not a mapping.
    """
    path = Path(recipe).expanduser()
    if path.suffix not in (".yaml", ".yml"):
        names = recipe_names()
        if recipe not in names:
            raise UserError(
                f"recipe '{recipe}': no recipe of this name{nearest(recipe, names)}; expected one of "
                f"{', '.join(names)}, or a YAML file"
            )
        with resources.as_file(resources.files("kpac.data.synthesis") / "recipes" / f"{recipe}.yaml") as shipped:
            return read_yaml(shipped)
    return read_yaml(path)


def draw(bounds: tuple[float, float], generator: np.random.Generator) -> float:
    """Draws a number from a range, uniformly."""
    return float(generator.uniform(*bounds))


def draw_log(bounds: tuple[float, float], generator: np.random.Generator) -> float:
    """Draws a number from a range above 0, uniformly in its logarithm."""
    return float(np.exp(generator.uniform(*np.log(bounds))))
