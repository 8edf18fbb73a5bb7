"""Prepares scenes for training: decodes every image into the cache, and checks that a scene's images match in size."""

import logging
from collections.abc import Sequence

from kpac.data.cache import DecodedCache
from kpac.data.layouts import SceneFiles
from kpac.errors import UserError

log = logging.getLogger(__name__)


def prepare_scenes(
    scenes: Sequence[SceneFiles], cache: DecodedCache, skip_unreadable: bool = False
) -> list[SceneFiles]:
    """Decodes all images of the scenes into the cache, so that a broken file is found before the training starts.

    Args:
        scenes: from `kpac.data.layouts.find_scenes`.
        cache: cache of decoded images.
        skip_unreadable: leaves out scenes with an unreadable image, and logs each, instead of raising.

    Returns:
        The usable scenes; all of them without `skip_unreadable`.

    Raises:
        UserError: an image cannot be read, the images of a scene differ in size, or no scene is left.
    """
    paths = [path for files in scenes for path in files.paths]
    try:
        unreadable = set(cache.prepare(paths, keep_going=skip_unreadable))
    except UserError as error:
        if "not a whole image" in str(error):
            raise UserError(f"{error}. To skip such scenes, set data.skip_unreadable=true") from None
        raise
    usable = []
    for files in scenes:
        broken = unreadable.intersection(files.paths)
        if broken:
            log.warning("skipping scene '%s': %s cannot be read", files.name, ", ".join(map(str, broken)))
        else:
            check_sizes(files, cache)
            usable.append(files)
    if not usable:
        raise UserError(f"{paths[0].parent}: none of {len(scenes)} scenes can be read")
    return usable


def check_sizes(files: SceneFiles, cache: DecodedCache) -> None:
    """Raises a UserError if a scene's images differ in size; the message names two of them."""
    first, *others = files.paths
    for path in others:
        require_equal_sizes(path, cache.open(path).shape, first, cache.open(first).shape)


def require_equal_sizes(path: object, shape: tuple[int, ...], first_path: object, first: tuple[int, ...]) -> None:
    """Raises a UserError if two images of one scene differ in size; shapes are H x W x C."""
    if shape[:2] != first[:2]:
        found, expected = (f"{width}x{height}" for height, width in (shape[:2], first[:2]))
        raise UserError(f"{path}: is {found}, but {first_path} of the same scene is {expected}")
