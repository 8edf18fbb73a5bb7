"""Broken and unequal images are found before a training starts, and left out only on request and aloud."""

import numpy as np
import pytest

from kpac.data.cache import DecodedCache
from kpac.data.layouts import find_scenes
from kpac.data.preparation import prepare_scenes
from kpac.errors import UserError
from kpac.images import write_pixels


@pytest.fixture
def root(tmp_path):
    """Three training pairs."""
    for folder in ("source", "target"):
        for name in "abc":
            write_pixels(tmp_path / "set" / "train_c" / folder / f"{name}.png", np.zeros((8, 8, 3), np.uint16))
    return tmp_path / "set"


def test_unreadable_image_stops_with_its_name_and_the_way_on(root, tmp_path):
    broken = root / "train_c" / "target" / "b.png"
    broken.write_bytes(broken.read_bytes()[:-20])
    scenes = find_scenes(root, "train")
    with pytest.raises(UserError, match=r"b.png: not a whole image.* set data.skip_unreadable=true") as refusal:
        prepare_scenes(scenes, DecodedCache(tmp_path / "cache"))
    assert "\n" not in str(refusal.value)


def test_unreadable_image_leaves_its_scene_out_on_request_and_aloud(root, tmp_path, caplog):
    (root / "train_c" / "source" / "b.png").write_bytes(b"")
    usable = prepare_scenes(find_scenes(root, "train"), DecodedCache(tmp_path / "cache"), skip_unreadable=True)
    assert [scene.name for scene in usable] == ["a", "c"]
    assert "skipping scene 'b'" in caplog.text
    assert str(root / "train_c" / "source" / "b.png") in caplog.text


def test_set_without_a_readable_scene_is_refused(root, tmp_path):
    for path in (root / "train_c" / "source").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="none of 3 scenes can be read"):
        prepare_scenes(find_scenes(root, "train"), DecodedCache(tmp_path / "cache"), skip_unreadable=True)


def test_images_of_one_scene_that_differ_in_size_are_named(root, tmp_path):
    write_pixels(root / "train_c" / "target" / "c.png", np.zeros((8, 9, 3), np.uint16))
    with pytest.raises(UserError, match=r"target/c.png: is 9x8, but .*source/c.png of the same scene is 8x8"):
        prepare_scenes(find_scenes(root, "train"), DecodedCache(tmp_path / "cache"))
