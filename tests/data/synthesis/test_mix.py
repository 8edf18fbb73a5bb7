"""`scripts/mix_data.py`: one data set of links to the scenes of several."""

import json

from scripts.mix_data import mix


def synthesized(root, radii):
    """A data set with a training and a test scene for each blur radius."""
    scenes = []
    for split in ("train", "test"):
        for number, radius in enumerate(radii):
            name = f"{split}{number}"
            scenes.append({"name": name, "split": split, "blur_radius_px": [-radius, 0.5]})
            for folder in ("source", "target"):
                (root / f"{split}_c" / folder).mkdir(parents=True, exist_ok=True)
                (root / f"{split}_c" / folder / f"{name}.png").write_text(f"{root.name} {name} {folder}")
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
