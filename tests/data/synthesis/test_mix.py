"""`scripts/mix_data.py`: one data set of links to the scenes of several."""

import json

from scripts.mix_data import mix


def synthesized(root, radii, views="c"):
    """A data set with a training and a test scene for each blur radius."""
    scenes = []
    for split in ("train", "test"):
        for number, radius in enumerate(radii):
            name = f"{split}{number}"
            scenes.append({"name": name, "split": split, "blur_radius_px": [-radius, 0.5]})
            for folder in (*(f"{split}_{view}/source" for view in views), f"{split}_c/target"):
                (root / folder).mkdir(parents=True, exist_ok=True)
                (root / folder / f"{name}.png").write_text(f"{root.name} {name} {folder[-6:]}")
    (root / "synthesis.json").write_text(json.dumps({"scenes": scenes}))
    return root


def test_scenes_with_little_blur_are_left_out_and_only_the_first_source_is_tested_on(tmp_path):
    first = synthesized(tmp_path / "first", [1, 3, 5])
    second = synthesized(tmp_path / "second", [1, 8])
    assert mix(tmp_path / "mixed", [(first, 2.5), (second, 0)]) == {"train": 4, "test": 2}
    names = {
        split: sorted(path.stem for path in (tmp_path / "mixed" / f"{split}_c" / "target").iterdir())
        for split in ("train", "test")
    }
    assert names["train"] == ["first_train1", "first_train2", "second_train0", "second_train1"]
    assert names["test"] == ["first_test1", "first_test2"]
    assert (tmp_path / "mixed/train_c/source/second_train0.png").read_text() == "second train0 source"


def test_dual_pixel_views_are_linked_if_every_source_has_them(tmp_path):
    dual = synthesized(tmp_path / "dual", [3], views="clr")
    other = synthesized(tmp_path / "other", [3], views="clr")
    center = synthesized(tmp_path / "center", [3])
    mix(tmp_path / "all_dual", [(dual, 0), (other, 0)])
    for view in "clr":
        assert len(list((tmp_path / "all_dual" / f"train_{view}" / "source").iterdir())) == 2
    mix(tmp_path / "some_dual", [(dual, 0), (center, 0)])
    assert sorted(path.name for path in (tmp_path / "some_dual").iterdir()) == ["test_c", "train_c"]
