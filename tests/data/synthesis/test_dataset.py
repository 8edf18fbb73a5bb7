"""A synthetic data set is whole, reproducible, and never shows a photograph in two splits."""

import io
import json
import shutil
from collections import defaultdict

import numpy as np
import pytest

from kpac.data.layouts import SPLITS, find_scenes
from kpac.data.synthesis import dataset as synthetic
from kpac.data.synthesis.dataset import scenes_of_each, synthesize
from kpac.data.synthesis.photos import folder_photos, skimage_photos
from kpac.data.synthesis.settings import SynthesisSettings
from kpac.errors import UserError
from kpac.images import read_pixels, write_pixels
from tests.conftest import write_photos

FAST = SynthesisSettings(size=32)


def contents(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_data_set_has_dpdds_layout_with_three_views_in_16_bits(data_root):
    views = ("center", "left", "right")
    for split in SPLITS:
        for scene in find_scenes(data_root, split, views):
            assert [read_pixels(path).dtype for path in scene.paths] == [np.uint16] * 4
    assert len(find_scenes(data_root, "train")) == 8


def test_photograph_appears_in_one_split_only(tmp_path):
    photos = write_photos(tmp_path / "photos", 9, 24, 24)
    shutil.copy(photos / "photo 0.png", photos / "the same again.png")
    splits = defaultdict(set)
    for photo in folder_photos(photos, None, val=0.3, test=0.3, seed=4):
        splits[photo.path.read_bytes()].add(photo.split)
    assert len(splits) == 9
    assert all(len(found) == 1 for found in splits.values())
    root = synthesize(folder_photos(photos, None, 0.3, 0.3, 4), tmp_path / "set", FAST)
    targets = {split: {path.read_bytes() for path in (root / f"{split}_c/target").iterdir()} for split in SPLITS}
    assert not targets["train"] & targets["test"]
    assert not targets["train"] & targets["val"]
    assert not targets["val"] & targets["test"]


def test_photographs_of_scikit_image_are_divided_without_overlap():
    photos = skimage_photos()
    assert len({photo.name for photo in photos}) == len(photos)
    assert {photo.split for photo in photos} == set(SPLITS)
    assert not any("motorcycle" in photo.name for photo in photos if photo.split != "test")
    _, depth = next(photo for photo in photos if photo.depth_path).pixels(size=2000)
    assert depth.shape == (500, 741)
    assert 2 < depth.min() < depth.max() < 6  # metres, the garage of the Middlebury scene


def test_same_seed_gives_the_same_bits_with_any_number_of_workers(tmp_path):
    photos = folder_photos(write_photos(tmp_path / "photos", 3), None, 0.1, 0.1, 0)
    first = synthesize(photos, tmp_path / "a", FAST, workers=1)
    second = synthesize(photos, tmp_path / "b", FAST, workers=3)
    other = synthesize(photos, tmp_path / "c", FAST.model_copy(update={"seed": 1}), workers=1)
    assert contents(first) == contents(second)
    assert contents(first) != contents(other)


def test_finished_data_set_is_kept_and_another_one_refused(tmp_path):
    photos = folder_photos(write_photos(tmp_path / "photos", 3), None, 0.1, 0.1, 0)
    root = synthesize(photos, tmp_path / "a", FAST)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    synthesize(photos, root, FAST)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    with pytest.raises(UserError, match="does not hold this data set"):
        synthesize(photos, root, FAST.model_copy(update={"f_number": (8.0, 8.0)}))
    synthesize(photos, root, FAST.model_copy(update={"f_number": (8.0, 8.0)}), overwrite=True)
    assert json.loads((root / "synthesis.json").read_text())["recipe"]["settings"]["f_number"] == [8.0, 8.0]


def test_changed_depth_map_is_noticed(tmp_path):
    folder = write_photos(tmp_path / "photos", 3, 24, 32)
    (tmp_path / "depth").mkdir()
    synthesize(folder_photos(folder, tmp_path / "depth", 0.1, 0.1, 0), tmp_path / "set", FAST)
    np.save(tmp_path / "depth" / "photo 0.npy", np.full((24, 32), 3.0))
    with pytest.raises(UserError, match="does not hold this data set"):
        synthesize(folder_photos(folder, tmp_path / "depth", 0.1, 0.1, 0), tmp_path / "set", FAST)


def test_failed_replacement_keeps_the_earlier_set(tmp_path):
    photos = folder_photos(write_photos(tmp_path / "photos", 3), None, 0.1, 0.1, 0)
    root = synthesize(photos, tmp_path / "set", FAST)
    before = contents(root)
    (tmp_path / "photos" / "photo 1.png").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"photo 1.png"):
        synthesize(photos, root, FAST, overwrite=True)
    assert contents(root) == before


def test_foreign_folder_is_never_replaced(tmp_path):
    photos = folder_photos(write_photos(tmp_path / "photos", 3), None, 0.1, 0.1, 0)
    with pytest.raises(UserError, match="name another folder"):
        synthesize(photos, tmp_path / "photos", FAST, overwrite=True)
    assert len(list((tmp_path / "photos").iterdir())) == 3


def test_failure_leaves_nothing_behind(tmp_path):
    photos = folder_photos(write_photos(tmp_path / "photos", 3), None, 0.1, 0.1, 0)
    (tmp_path / "photos" / "photo 2.png").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"photo 2.png: not a whole image"):
        synthesize(photos, tmp_path / "set", FAST)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_blur_map_that_cannot_be_written_is_named(tmp_path):
    (photo,) = folder_photos(write_photos(tmp_path / "photos", 3, 24, 24), None, val=0.1, test=0.1, seed=0)[:1]
    (tmp_path / f"{photo.split}_c").mkdir()
    (tmp_path / f"{photo.split}_c" / "blur").touch()  # where the folder should be
    with pytest.raises(UserError, match=r"c/blur/photo .*_0.tiff: cannot be written"):
        synthetic._make_scene(tmp_path, SynthesisSettings(), photo, 0, 0)


def test_given_depth_is_used_and_decides_the_blur(tmp_path):
    folder = write_photos(tmp_path / "photos", 3, 24, 32)
    (tmp_path / "depth").mkdir()
    for index in range(3):
        np.save(tmp_path / "depth" / f"photo {index}.npy", np.full((24, 32), 3.0))
    photos = folder_photos(folder, tmp_path / "depth", 0.1, 0.1, 0)
    root = synthesize(photos, tmp_path / "set", FAST)
    scenes = json.loads((root / "synthesis.json").read_text())["scenes"]
    assert {scene["depth"] for scene in scenes} == {"measured"}
    assert {scene["focus_distance_m"] for scene in scenes} == {3.0}


def test_depth_map_of_another_size_is_named(tmp_path):
    folder = write_photos(tmp_path / "photos", 3, 24, 32)
    write_pixels(folder / "photo 0.png", np.zeros((24, 24, 3), np.uint8))
    (tmp_path / "depth").mkdir()
    np.save(tmp_path / "depth" / "photo 0.npy", np.full((24, 32), 3.0))
    with pytest.raises(UserError, match=r"photo 0.png: is 24x24, its depth map is 32x24"):
        synthesize(folder_photos(folder, tmp_path / "depth", 0.1, 0.1, 0), tmp_path / "set", FAST)


def write_archive(path):
    with path.open("wb") as file:
        np.savez(file, depth=np.ones((24, 32)))


def npy(array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


DAMAGED = {
    "empty": lambda path: path.write_bytes(b""),
    "archive": write_archive,
    "text": lambda path: path.write_text("3.0"),
    "objects": lambda path: np.save(path, np.array([{}]), allow_pickle=True),
    "cut": lambda path: path.write_bytes(npy(np.ones((24, 32)))[:-8]),
    "huge": lambda path: path.write_bytes(
        npy(np.ones((24, 32))).replace(b"(24, 32), }" + b" " * 11, b"(2400000000000, 32), }")
    ),
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_file_that_is_no_depth_map_is_named(tmp_path, damage):
    folder = write_photos(tmp_path / "photos", 3, 24, 32)
    path = tmp_path / "depth" / "photo 0.npy"
    path.parent.mkdir()
    damage(path)
    photo = next(photo for photo in folder_photos(folder, path.parent, 0.1, 0.1, 0) if photo.depth_path)
    with pytest.raises(UserError, match=r"photo 0.npy: not a NumPy array file; expected depth in metres, H x W"):
        photo.pixels(32)


@pytest.mark.parametrize(("count", "words"), [(0, "holds 0"), (2, "expected 3 or more")])
def test_too_few_photographs_are_refused(tmp_path, count, words):
    with pytest.raises(UserError, match=words):
        folder_photos(write_photos(tmp_path / "photos", count, 8, 8), None, 0.1, 0.1, 0)


def test_scenes_are_spread_evenly_over_the_photographs():
    assert scenes_of_each(3, 8) == [3, 3, 2]
    assert scenes_of_each(3, None) == [2, 2, 2]
    with pytest.raises(UserError, match="scenes: 2 for 3 photographs"):
        scenes_of_each(3, 2)


def test_center_view_alone_makes_a_set_without_dual_pixel_views(tmp_path):
    photos = folder_photos(write_photos(tmp_path / "photos", 3, 24, 24), None, 0.3, 0.3, 0)
    root = synthesize(photos, tmp_path / "set", SynthesisSettings(size=32, views="center"))
    assert not list(root.glob("*_l")) + list(root.glob("*_r"))
    assert len(find_scenes(root, "train")) == 2


def test_subfolders_say_which_photograph_belongs_to_which_split(tmp_path):
    for number, split in enumerate(SPLITS):
        write_photos(tmp_path / split, number + 1, 24, 24)
        for path in list((tmp_path / split).iterdir()):
            path.rename(path.with_name(f"{split} {path.name}"))
    photos = write_photos(tmp_path / "more", 4, 24, 24)
    for split in ("val", "test"):  # the same bytes as in train
        for path in list((tmp_path / split).iterdir()):
            path.unlink()
        (photos / f"photo {2 if split == 'val' else 3}.png").rename(tmp_path / split / f"{split}.png")
    found = folder_photos(tmp_path, None, 0.5, 0.5, 0)
    assert sorted((photo.name, photo.split) for photo in found) == [
        ("test", "test"),
        ("train photo 0", "train"),
        ("val", "val"),
    ]
    shutil.copy(tmp_path / "test" / "test.png", tmp_path / "train" / "copy.png")
    with pytest.raises(UserError, match=r"test.png: is the same photograph as .*copy.png, in another split"):
        folder_photos(tmp_path, None, 0.5, 0.5, 0)
    (tmp_path / "train" / "copy.png").rename(tmp_path / "loose.png")
    with pytest.raises(UserError, match=r"loose.png: is not in one of the folders train, val, test"):
        folder_photos(tmp_path, None, 0.5, 0.5, 0)


def test_recipe_draws_each_scene_and_flags_change_it(tmp_path):
    settings = SynthesisSettings.from_options({"f_number": "2:4", "output": "x"}, "real")
    assert settings.f_number == (2, 4)
    assert settings.views == "center"
    photos = folder_photos(write_photos(tmp_path / "photos", 3, 48, 48), None, 0.3, 0.3, 0)
    root = synthesize(photos, tmp_path / "set", settings)
    scenes = json.loads((root / "synthesis.json").read_text())["scenes"]
    assert len({scene["f_number"] for scene in scenes}) == len(scenes) == 6
    assert all(2 <= scene["f_number"] <= 4 for scene in scenes)
    own = tmp_path / "own.yaml"
    own.write_text("f_number: [4, 2]\n")
    with pytest.raises(UserError, match=r"^'f_number' should have its smaller value first, found \[4, 2\]$"):
        SynthesisSettings.from_options({}, str(own))
    own.write_text("f_nmber: 2\n")
    with pytest.raises(UserError, match="did you mean 'f_number'"):
        SynthesisSettings.from_options({}, str(own))
    with pytest.raises(UserError, match="recipe 'reel': no recipe of this name; did you mean 'real'"):
        SynthesisSettings.from_options({}, "reel")
