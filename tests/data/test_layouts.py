"""Folders become scenes, or an error that names what is missing."""

import shutil

import numpy as np
import pytest

from kpac.data.images import write_pixels
from kpac.data.layouts import find_scenes
from kpac.data.pairing import published_pairs
from kpac.errors import UserError


def write_set(root, sources, targets, split="train"):
    for folder, names in (("source", sources), ("target", targets)):
        (root / f"{split}_c" / folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            write_pixels(root / f"{split}_c" / folder / f"{name}.png", np.zeros((4, 4, 3), np.uint16))
    return root


def test_published_names_pair_by_the_published_list(tmp_path):
    # A third target, as a half-finished copy leaves it: sorted position would pair the second scene wrongly.
    write_set(tmp_path, ["1P0A0890", "1P0A0911"], ["1P0A0891", "1P0A0893", "1P0A0910"])
    scenes = find_scenes(tmp_path, "train")
    assert [(scene.name, scene.target.stem) for scene in scenes] == [
        ("1P0A0890", "1P0A0891"),
        ("1P0A0911", "1P0A0910"),
    ]


def test_published_scene_without_its_target_is_named(tmp_path):
    write_set(tmp_path, ["1P0A0890", "1P0A0911"], ["1P0A0891"])
    with pytest.raises(UserError, match=r"no target named 1P0A0910.png, which belongs to .*1P0A0911.png"):
        find_scenes(tmp_path, "train")


def test_published_lists_are_whole():
    pairs = published_pairs()
    assert {split: len(names) for split, names in pairs.items()} == {"train": 350, "val": 74, "test": 76}
    everything = [name for names in pairs.values() for pair in names.items() for name in pair]
    assert len(set(everything)) == 1000


def test_names_that_differ_pair_by_sorted_position_and_say_so(tmp_path, caplog):
    write_set(tmp_path, ["b1", "a1"], ["b2", "a2"])
    scenes = find_scenes(tmp_path, "train")
    assert [(scene.name, scene.target.stem) for scene in scenes] == [("a1", "a2"), ("b1", "b2")]
    assert "share no names: pairing them in sorted order" in caplog.text


def write_images(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        write_pixels(folder / f"{name}.png", np.zeros((4, 4, 3), np.uint8))


@pytest.mark.parametrize("base", ["test/DPDD", "test", "DPDD", ""])
@pytest.mark.parametrize("suffix", ["", "_crops"])
def test_redistributed_dpdd_is_found_with_its_views_and_groups(tmp_path, base, suffix):
    for folder in ("inputC", "inputL", "inputR", "target"):
        write_images(tmp_path / base / (folder + suffix), ["1", "2", "3"])
    np.save(tmp_path / base / "indoor_labels.npy", np.array([1, 3]))
    np.save(tmp_path / base / "outdoor_labels.npy", np.array([2]))
    scenes = find_scenes(tmp_path, "test", ("center", "left", "right"))
    assert [scene.group for scene in scenes] == ["indoor", "outdoor", "indoor"]
    assert [path.parent.name for path in scenes[0].paths] == [
        name + suffix for name in ("inputC", "inputL", "inputR", "target")
    ]


@pytest.mark.parametrize("positions", [[0], [4], [1, 1], ["a"]])
def test_labels_that_do_not_fit_the_list_are_named(tmp_path, positions):
    for folder in ("inputC", "target"):
        write_images(tmp_path / folder, ["1", "2", "3"])
    np.save(tmp_path / "indoor_labels.npy", np.array(positions))
    with pytest.raises(UserError, match=r"indoor_labels.npy: (position|not a NumPy array)"):
        find_scenes(tmp_path, "test")


def test_realdof_and_paired_folders_are_found(tmp_path):
    for folder in ("RealDOF/source", "RealDOF/target"):
        write_images(tmp_path / "a" / folder, ["1"])
    assert find_scenes(tmp_path / "a", "test")[0].target.parent.parent.name == "RealDOF"
    for split in ("train", "val"):
        for folder in ("input", "target"):
            write_images(tmp_path / "b" / split / folder, [split])
    assert [scene.name for split in ("train", "val") for scene in find_scenes(tmp_path / "b", split)] == [
        "train",
        "val",
    ]
    with pytest.raises(UserError, match="no test split found"):
        find_scenes(tmp_path / "b", "test")


def test_undivided_folders_are_a_test_split_and_nothing_else(tmp_path):
    for folder in ("input", "target"):
        write_images(tmp_path / folder, ["1"])
    assert len(find_scenes(tmp_path, "test")) == 1
    with pytest.raises(UserError, match="no train split found"):
        find_scenes(tmp_path, "train")


def test_plain_folder_of_images_has_no_targets(tmp_path):
    write_images(tmp_path, ["1", "2"])
    assert [scene.target for scene in find_scenes(tmp_path, "test", targets=False)] == [None, None]
    with pytest.raises(UserError, match=r"without targets \(layout 'images'\)"):
        find_scenes(tmp_path, "test")


def test_cuhk_is_its_defocused_images_alone(tmp_path):
    write_images(tmp_path / "CUHK" / "image", ["out_of_focus0001", "motion0001"])
    write_images(tmp_path / "CUHK" / "gt", ["out_of_focus0001", "motion0001"])
    scenes = find_scenes(tmp_path, "test", targets=False)
    assert [scene.name for scene in scenes] == ["out_of_focus0001"]
    assert find_scenes(tmp_path / "CUHK", "test", targets=False)[0].target is None


@pytest.mark.parametrize("folder", ["", "source"])
def test_pixeldp_is_dual_views_to_be_turned(tmp_path, folder):
    for view in "clr":
        write_images(tmp_path / "PixelDP" / f"test_{view}" / folder, ["1", "2"])
    (scene, _) = find_scenes(tmp_path, "test", ("center", "left", "right"), targets=False)
    assert [path.relative_to(tmp_path).parts[1] for path in scene.paths] == ["test_c", "test_l", "test_r"]
    assert scene.quarter_turns == 1


def test_published_dpdd_without_its_targets_is_not_taken_for_pixeldp(tmp_path):
    root = write_set(tmp_path / "dd_dp_dataset_canon", ["a"], ["b"], split="test")
    shutil.rmtree(root / "test_c" / "target")
    with pytest.raises(UserError, match=r"test_c/target: no such folder; .*--layout pixeldp if this is pixeldp"):
        find_scenes(root, "test", targets=False)
    (scene,) = find_scenes(root, "test", layout="pixeldp", targets=False)
    assert scene.quarter_turns == 1
    named = root.rename(tmp_path / "dd_dp_dataset_pixel")
    assert find_scenes(named, "test", targets=False)[0].quarter_turns == 1


def test_published_dpdd_without_its_images_is_not_taken_for_another_layout(tmp_path):
    write_set(tmp_path, [], [], split="test")
    with pytest.raises(UserError, match=r"test_c/source: holds no images"):
        find_scenes(tmp_path, "test", targets=False)


def test_layout_can_be_named(tmp_path, data_root):
    assert find_scenes(data_root, "test", layout="dpdd")
    with pytest.raises(UserError, match="no test split found"):
        find_scenes(data_root, "test", layout="paired")
    with pytest.raises(UserError, match="no layout is called 'dpd'"):
        find_scenes(data_root, "test", layout="dpd")


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
    with pytest.raises(UserError, match=r"no train split found; expected train_c/source .* found in .*: holiday"):
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
    with pytest.raises(UserError, match=r"no target named b.png, which belongs to"):
        find_scenes(tmp_path, "train")


def test_counts_that_cannot_pair_are_named(tmp_path):
    write_set(tmp_path, ["a", "b"], ["c"])
    with pytest.raises(UserError, match=r"holds 1 images, .* 2"):
        find_scenes(tmp_path, "train")


@pytest.mark.parametrize("folder", ["source", "target"])
def test_two_images_of_one_name_are_refused_by_name(tmp_path, folder):
    write_set(tmp_path, ["a", "b"], ["a", "b"])
    (tmp_path / "train_c" / folder / "a.png").with_suffix(".jpg").write_bytes(b"")
    with pytest.raises(UserError, match=rf"{folder}/a.png: has the name of .*{folder}/a.jpg; expected one image a sc"):
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
