"""Folders become scenes, or an error that names what is missing."""

import shutil

import numpy as np
import pytest

from kpac.data.images import write_pixels
from kpac.data.layouts import find_scenes
from kpac.errors import UserError


def write_set(root, sources, targets, split="train"):
    for folder, names in (("source", sources), ("target", targets)):
        (root / f"{split}_c" / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            write_pixels(root / f"{split}_c" / folder / f"{name}.png", np.zeros((4, 4, 3), np.uint16))
    return root


def test_names_that_differ_pair_by_sorted_position(tmp_path):
    write_set(tmp_path, ["1P0A0890", "1P0A0912"], ["1P0A0891", "1P0A0911"])
    scenes = find_scenes(tmp_path, "train")
    assert [(scene.name, scene.target.stem) for scene in scenes] == [
        ("1P0A0890", "1P0A0891"),
        ("1P0A0912", "1P0A0911"),
    ]


def test_shared_names_pair_by_name(tmp_path):
    write_set(tmp_path, ["a", "b"], ["a", "b", "c"])
    assert [scene.target.stem for scene in find_scenes(tmp_path, "train")] == ["a", "b"]


def test_views_come_in_the_order_asked_for(data_root):
    scene = find_scenes(data_root, "test", ("center", "left", "right"))[0]
    assert [path.parent.parent.name for path in scene.paths] == ["test_c", "test_l", "test_r", "test_c"]


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no such folder; expected a data set"):
        find_scenes(tmp_path / "nowhere", "train")


def test_folder_of_something_else_says_what_it_holds(tmp_path):
    (tmp_path / "holiday").mkdir()
    with pytest.raises(UserError, match=r"train_c/source: no such folder; expected defocused .* found in .*: holiday"):
        find_scenes(tmp_path, "train")


def test_empty_folder_is_named(tmp_path):
    write_set(tmp_path, [], [])
    with pytest.raises(UserError, match=r"train_c/source: holds no images"):
        find_scenes(tmp_path, "train")


def test_folder_without_targets_is_named(tmp_path):
    write_set(tmp_path, ["a"], [])
    shutil.rmtree(tmp_path / "train_c" / "target")
    with pytest.raises(UserError, match=r"train_c/target: no such folder; expected all-in-focus images"):
        find_scenes(tmp_path, "train")


def test_missing_target_is_named(tmp_path):
    write_set(tmp_path, ["a", "b"], ["a"])
    with pytest.raises(UserError, match=r"no target named b.png"):
        find_scenes(tmp_path, "train")


def test_counts_that_cannot_pair_are_named(tmp_path):
    write_set(tmp_path, ["a", "b"], ["c"])
    with pytest.raises(UserError, match=r"holds 1 images, .* 2"):
        find_scenes(tmp_path, "train")


def test_missing_view_is_named(data_root, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(data_root, root)
    lost = find_scenes(root, "test", ("left",))[0].views["left"]
    lost.unlink()
    with pytest.raises(UserError, match=rf"no left view named {lost.name}"):
        find_scenes(root, "test", ("center", "left", "right"))


def test_unknown_split_is_named(data_root):
    with pytest.raises(UserError, match="no split is called 'tset'; expected one of: train, val, test"):
        find_scenes(data_root, "tset")
