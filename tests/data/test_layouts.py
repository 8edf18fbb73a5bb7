"""Folders become scenes, or an error that names what is missing."""

import shutil

import numpy as np
import pytest

from kpac.commands.remedies import explain
from kpac.data.folders import find_layout
from kpac.data.layouts import find_scenes
from kpac.data.pairing import published_pairs
from kpac.errors import UserError
from kpac.images import write_pixels


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
    with pytest.raises(UserError, match=r"no target named 1P0A0910.png for .*1P0A0911.png"):
        find_scenes(tmp_path, "train")


def test_published_lists_are_whole():
    pairs = published_pairs()
    assert {split: len(names) for split, names in pairs.items()} == {"train": 350, "val": 74, "test": 76}
    everything = [name for names in pairs.values() for pair in names.items() for name in pair]
    assert len(set(everything)) == 1000


def test_sorted_order_pairs_only_where_it_is_asked_for(tmp_path, caplog):
    write_set(tmp_path, ["dusk", "dawn"], ["1", "2"])
    with pytest.raises(
        UserError, match=r"source \(2: dawn.png, dusk.png\) and .*target \(2: 1.png, 2.png\): the names do"
    ):
        find_scenes(tmp_path, "train")
    scenes = find_scenes(tmp_path, "train", pair_by_order=True)
    assert [(scene.name, scene.target.stem) for scene in scenes] == [("dawn", "1"), ("dusk", "2")]
    assert "target: names pair by sorted order" in caplog.text


def test_names_that_share_a_suffix_pair_by_what_differs_and_say_so(tmp_path, caplog):
    numbers = range(1, 12)
    write_set(tmp_path, [f"{number}_blur" for number in numbers], [str(number) for number in numbers])
    assert all(f"{scene.target.stem}_blur" == scene.name for scene in find_scenes(tmp_path, "train"))
    assert "target: names pair as 10_blur and 10" in caplog.text


@pytest.mark.parametrize("split", ["train", "test"])
def test_views_and_targets_in_one_folder_are_told_by_their_names(tmp_path, split):
    base = tmp_path / split if split == "train" else tmp_path
    write_images(base, [f"{number}_{role}" for number in (1, 2, 10) for role in ("left", "right", "center", "gt")])
    scenes = find_scenes(tmp_path, split, ("center", "left", "right"))
    assert [[path.stem for path in scene.paths] for scene in scenes] == [
        [f"{number}_{role}" for role in ("center", "left", "right", "gt")] for number in (10, 1, 2)
    ]


def test_inputs_beside_their_targets_in_one_folder(tmp_path):
    write_images(tmp_path / "a", ["12", "12_blur", "13", "13_blur"])
    write_images(tmp_path / "b", ["12", "12_gt", "13", "13_gt"])
    assert {scene.name: scene.target.stem for scene in find_scenes(tmp_path / "a", "test")} == {
        "12_blur": "12",
        "13_blur": "13",
    }
    assert {scene.name: scene.target.stem for scene in find_scenes(tmp_path / "b", "test")} == {
        "12": "12_gt",
        "13": "13_gt",
    }


def test_left_and_right_views_beside_each_other_have_no_center(tmp_path):
    write_images(tmp_path / "test" / "input", ["001_left", "001_right", "002_left", "002_right"])
    write_images(tmp_path / "test" / "target", ["001", "002"])
    with pytest.raises(UserError, match="its names mark left and right images, but no center ones"):
        find_scenes(tmp_path, "test")


def test_inputs_that_have_targets_of_their_names_are_inputs_whatever_these_say(tmp_path):
    for folder in ("input", "target"):
        write_images(tmp_path / "test" / folder, ["001_left", "001_right", "002_left", "002_right"])
    assert len(find_scenes(tmp_path, "test")) == 4


def test_views_with_names_of_their_own_pair_with_the_inputs(tmp_path):
    for folder, end in (("inputC", "_C"), ("inputL", "_L"), ("inputR", "_R"), ("target", "")):
        write_images(tmp_path / folder, [f"{number}{end}" for number in range(1, 12)])
    for scene in find_scenes(tmp_path, "test", ("center", "left", "right")):
        number = scene.name[:-2]
        assert [path.stem for path in scene.paths] == [f"{number}_C", f"{number}_L", f"{number}_R", number]


def test_photographs_of_one_kind_are_not_taken_for_pairs(tmp_path):
    write_images(tmp_path, ["castle_left", "castle_2", "left_turn", "sharp_bend"])
    assert len(find_scenes(tmp_path, "test", targets=False)) == 4


@pytest.mark.parametrize(
    ("inputs", "targets"),
    [("blur", "sharp"), ("input", "gt"), ("lq", "gt"), ("images", "gt"), ("source", "target"), ("Blurred", "Sharp")],
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_folders_of_many_names_are_paired(tmp_path, inputs, targets, split):
    base = tmp_path / split if split == "train" else tmp_path
    write_images(base / inputs, ["1", "2"])
    write_images(base / targets, ["1", "2"])
    assert find_layout(tmp_path, split).layout.name == "paired"
    assert [path.parent.name for path in find_scenes(tmp_path, split)[0].paths] == [inputs, targets]


def test_two_folders_that_could_be_the_inputs_are_named(tmp_path):
    for folder in ("blur", "lq", "gt"):
        write_images(tmp_path / folder, ["1"])
    with pytest.raises(UserError, match=r"blur and lq are names of the same folder"):
        find_scenes(tmp_path, "test")


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
def test_pixeldp_is_dual_views_to_be_turned(tmp_path, folder, caplog):
    for view in "clr":
        write_images(tmp_path / "PixelDP" / f"test_{view}" / folder, ["1", "2"])
    (scene, _) = find_scenes(tmp_path, "test", ("center", "left", "right"), targets=False)
    assert [path.relative_to(tmp_path).parts[1] for path in scene.paths] == ["test_c", "test_l", "test_r"]
    assert scene.quarter_turns == 1
    assert "images are stored rotated; turning them upright" in caplog.text


def test_dual_views_that_are_not_pixeldps_are_not_turned_unless_named(tmp_path, caplog):
    for view in "clr":
        write_images(tmp_path / f"test_{view}", ["1", "2"])
    (scene, _) = find_scenes(tmp_path, "test", ("center", "left", "right"), targets=False)
    assert scene.quarter_turns == 0
    assert "images are not turned" in caplog.text
    (scene, _) = find_scenes(tmp_path, "test", layout="pixeldp_flat", targets=False)
    assert scene.quarter_turns == 1


def test_published_dpdd_without_its_targets_is_not_taken_for_pixeldp(tmp_path):
    root = write_set(tmp_path / "dd_dp_dataset_canon", ["a"], ["b"], split="test")
    shutil.rmtree(root / "test_c" / "target")
    with pytest.raises(UserError, match=r"test_c/target: no such folder; .* unless the layout is pixeldp") as error:
        find_scenes(root, "test", targets=False)
    assert "--layout pixeldp" in explain(error.value)
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
    with pytest.raises(UserError, match=r"no test split found; expected test/input and test/target \(layout paired\)"):
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
    with pytest.raises(UserError, match=r"no target named b.png for"):
        find_scenes(tmp_path, "train")


def test_counts_that_cannot_pair_are_named(tmp_path):
    write_set(tmp_path, ["a", "b"], ["c"])
    for by_order in (False, True):
        with pytest.raises(UserError, match=r"source \(2: a.png, b.png\) and .*target \(1: c.png\)"):
            find_scenes(tmp_path, "train", pair_by_order=by_order)


@pytest.mark.parametrize("folder", ["source", "target"])
def test_two_images_of_one_name_are_refused_by_name(tmp_path, folder):
    write_set(tmp_path, ["a", "b"], ["a", "b"])
    (tmp_path / "train_c" / folder / "a.png").with_suffix(".jpg").write_bytes(b"")
    with pytest.raises(UserError, match=rf"{folder}/a.png: has the same name as .*{folder}/a.jpg; expected one image"):
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
