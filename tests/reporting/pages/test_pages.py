"""The folder of a results page: exact images, what is missing said, mistakes in one line."""

import base64
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import kpac
from kpac.cli import main
from kpac.images import read_pixels
from tests.reporting.pages.conftest import SCENES, write_outputs, write_set


def data_of(script: Path) -> dict:
    """What a data script hands to the page."""
    text = script.read_text(encoding="utf-8")
    key, _, value = text.removeprefix("kpac.receive(").removesuffix(");\n").partition(", ")
    assert (
        json.loads(key)
        == script.relative_to(script.parents[len(json.loads(key).split("/")) - 1]).with_suffix("").as_posix()
    )
    return json.loads(value)


def pixels_of(script: Path) -> np.ndarray:
    image = Image.open(io.BytesIO(base64.b64decode(data_of(script)["data"])))
    return np.asarray(image.convert("RGB"))


def fails(capsys, *arguments) -> str:
    """The one line that a command which fails prints."""
    capsys.readouterr()
    assert main(list(map(str, arguments))) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    assert len(lines) == 1
    return lines[0]


@pytest.fixture
def network(tmp_path) -> Path:
    """The weights of a small KPAC network."""
    torch.manual_seed(0)
    path = tmp_path / "net.safetensors"
    kpac.save_model(kpac.create_model("kpac_2level", width=4, blocks=1, init="he"), path)
    return path


def evaluated(tmp_path, *arguments) -> Path:
    """The folder of results of three scenes."""
    data = write_set(tmp_path / "set") if not (tmp_path / "set").exists() else tmp_path / "set"
    folder = tmp_path / "results"
    assert main(["evaluate", *map(str, arguments), "--data", str(data), "--output", str(folder)]) == 0
    return folder


def test_images_of_a_page_are_exact(view, made):
    scenes = data_of(view / "data" / "index.js")["scenes"]
    assert {scene["name"] for scene in scenes} == set(SCENES)
    for number, scene in enumerate(scenes, 1):
        files = {"input": made / "set" / "input", "target": made / "set" / "target"}
        files |= {"method-0": made / "half", "method-1": made / "most"}
        assert sorted(scene["pictures"]) == sorted(files)
        for picture, folder in files.items():
            shown = pixels_of(view / "images" / str(number) / f"{picture}.js")
            np.testing.assert_array_equal(shown, read_pixels(folder / f"{scene['name']}.png"))


def test_images_of_16_bits_are_shown_through_the_mapping_that_the_page_states(tmp_path):
    data = write_set(tmp_path / "set", ["deep"], bit_depth=16)
    outputs = write_outputs(tmp_path / "method", data, 0.5)
    folder = evaluated(tmp_path, "--images", outputs, "--protocol", "dpdd-16bit")
    assert main(["view", str(folder), "--output", str(tmp_path / "view")]) == 0
    deep = read_pixels(outputs / "deep.png")
    assert deep.dtype == np.uint16
    shown = pixels_of(tmp_path / "view" / "images" / "1" / "method-0.js")
    np.testing.assert_array_equal(shown, np.rint(deep.astype(np.float64) * 255 / 65535))
    assert "v * 255 / 65535" in (tmp_path / "view" / "index.html").read_text(encoding="utf-8")


def test_results_without_images_say_how_to_keep_or_compute_them(tmp_path, network, capsys):
    folder = evaluated(tmp_path, network)
    message = fails(capsys, "view", folder, "--output", tmp_path / "view")
    assert str(folder / "results.json") in message
    assert "--save-images" in message
    assert "--restore" in message
    assert not (tmp_path / "view").exists()


def test_restored_outputs_are_those_that_an_evaluation_keeps(tmp_path, network):
    folder = evaluated(tmp_path, network, "--save-images")
    kept = shutil.move(folder / "images", tmp_path / "kept")
    assert main(["view", str(folder), "--output", str(tmp_path / "view"), "--restore", "--attention"]) == 0
    for number, scene in enumerate(data_of(tmp_path / "view" / "data" / "index.js")["scenes"], 1):
        images = tmp_path / "view" / "images" / str(number)
        np.testing.assert_array_equal(pixels_of(images / "method-0.js"), read_pixels(kept / f"{scene['name']}.png"))
        assert scene["maps"] == ["attention-0-1"]
        attention = data_of(images / "attention-0-1.js")
        assert 1 <= attention["low"] <= attention["high"] <= 5
        assert attention["factor"] == 4


def test_weights_that_changed_are_not_taken_for_those_of_the_results(tmp_path, network, capsys):
    folder = evaluated(tmp_path, network)
    torch.manual_seed(1)
    kpac.save_model(kpac.create_model("kpac_2level", width=4, blocks=1, init="he"), network)
    message = fails(capsys, "view", folder, "--output", tmp_path / "view", "--restore")
    assert "has changed since the evaluation" in message
    network.unlink()
    assert "are missing; put them back" in fails(capsys, "view", folder, "--output", tmp_path / "view", "--restore")


def test_scenes_are_the_union_and_gaps_are_said(tmp_path, made):
    shutil.copytree(made / "results", tmp_path / "results")
    for label, missing in (("half", SCENES[1]), ("most", SCENES[2])):
        file = tmp_path / "results" / f"{label}-set" / "results.json"
        results = json.loads(file.read_text(encoding="utf-8"))
        results["images"] = [image for image in results["images"] if image["name"] != missing]
        file.write_text(json.dumps(results), encoding="utf-8")
    assert main(["view", str(tmp_path / "results"), "--output", str(tmp_path / "view")]) == 0
    scenes = {scene["name"]: scene for scene in data_of(tmp_path / "view" / "data" / "index.js")["scenes"]}
    assert set(scenes) == set(SCENES)
    assert scenes[SCENES[1]]["scores"][0] is None
    assert scenes[SCENES[2]]["pictures"] == ["input", "method-0", "target"]
    page = (tmp_path / "view" / "index.html").read_text(encoding="utf-8")
    assert "half was not scored on 1 of 3 scenes: &lt;img src=x" in page
    assert "means over 1 scene that every method was scored on" in page


def test_a_moved_data_set_is_found_where_it_is_now(tmp_path, made, capsys):
    shutil.copytree(made / "results", tmp_path / "results")
    for file in (tmp_path / "results").rglob("results.json"):
        file.write_text(file.read_text(encoding="utf-8").replace(str(made / "set"), str(tmp_path / "old" / "set")))
    message = fails(capsys, "view", tmp_path / "results", "--output", tmp_path / "view")
    assert str(tmp_path / "old" / "set") in message
    assert "--data" in message
    arguments = ["view", str(tmp_path / "results"), "--output", str(tmp_path / "view"), "--data", str(made / "set")]
    assert main(arguments) == 0


def test_mistakes_are_one_line(tmp_path, made, capsys):
    assert "no such file" in fails(capsys, "view", tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    assert "neither a results.json nor a run" in fails(capsys, "view", tmp_path / "empty")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").write_text("years of work")
    message = fails(capsys, "view", made / "results", "--output", tmp_path / "taken")
    assert "thesis.tex" in message
    assert "--overwrite" in message
    assert "--refresh" in fails(capsys, "view", made / "results", "--refresh", "5", "--output", tmp_path / "v")
    assert "--attention" in fails(capsys, "view", made / "results", "--attention", "--output", tmp_path / "v")
    assert main(["view", str(made / "results"), "--output", str(tmp_path / "taken"), "--overwrite"]) == 0
    assert (tmp_path / "taken" / "thesis.tex").read_text() == "years of work"


def test_protocols_are_not_mixed(tmp_path, made, capsys):
    images = ["--images", str(made / "half"), "--data", str(made / "set"), "--protocol", "dpdd-16bit"]
    assert main(["evaluate", *images, "--output", str(tmp_path / "other")]) == 0
    message = fails(capsys, "view", made / "results", tmp_path / "other", "--output", tmp_path / "view")
    assert "dpdd-16bit" in message
    assert "dpdd-8bit" in message


def test_a_damaged_output_is_named_and_leaves_no_index(tmp_path, made, capsys):
    shutil.copytree(made / "half", tmp_path / "half")
    folder = tmp_path / "results"
    images = ["--images", str(tmp_path / "half"), "--data", str(made / "set")]
    assert main(["evaluate", *images, "--output", str(folder)]) == 0
    (tmp_path / "half" / "plain.png").write_bytes(b"no image")
    assert str(tmp_path / "half" / "plain.png") in fails(capsys, "view", folder, "--output", tmp_path / "view")
    assert not (tmp_path / "view" / "index.html").exists()


def test_an_earlier_page_is_replaced(tmp_path, made):
    assert main(["view", str(made / "results"), "--output", str(tmp_path / "view")]) == 0
    stale = tmp_path / "view" / "images" / "99"
    stale.mkdir()
    assert main(["view", str(made / "results" / "half-set"), "--output", str(tmp_path / "view")]) == 0
    assert not stale.exists()
    assert data_of(tmp_path / "view" / "data" / "index.js")["methods"] == ["half"]
