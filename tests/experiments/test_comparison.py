"""One YAML file is a whole comparison: methods of every kind, and tables, figures and a page at the end."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import kpac
from kpac.cli import main
from kpac.data.layouts import find_scenes
from kpac.errors import UserError
from kpac.evaluation import run
from kpac.experiments.comparison import load_comparison
from kpac.images import read_pixels, write_pixels

METHODS = "{ours: ours.safetensors, sharpened: {images: outputs}}"


@pytest.fixture
def folder(tmp_path, data_root, monkeypatch) -> Path:
    """A working directory with a network, and with images that another program made."""
    torch.manual_seed(0)
    kpac.save_model(kpac.create_model("kpac_2level", width=4, blocks=1), tmp_path / "ours.safetensors")
    for scene in find_scenes(data_root, "test", ("center",)):
        pixels = read_pixels(scene.paths[0]).astype(np.float64)
        brighter = np.clip(pixels * 1.02, 0, np.iinfo(read_pixels(scene.paths[0]).dtype).max)
        write_pixels(tmp_path / "outputs" / f"{scene.name}.png", brighter.astype(read_pixels(scene.paths[0]).dtype))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, data: Path, more: str = "", methods: str = METHODS) -> Path:
    path = folder / "comparison.yaml"
    path.write_text(f"name: mine\ndevice: cpu\nmethods: {methods}\ndata: {{made: {{root: '{data}'}}}}\n{more}")
    return path


def test_comparison_ends_in_table_figures_and_page_and_is_resumable(folder, data_root, capsys, monkeypatch):
    more = "draw: {table: {intervals: true, paired: sharpened, published: true}, sheet: {crop: 24}, page: true}\n"
    path = write(folder, data_root, more)
    assert main(["evaluate", str(path)]) == 0
    captured = capsys.readouterr()
    result = folder / "results" / "mine"
    for name in ("table.md", "table.tex", "table.csv", "table.json", "methods.txt", "scatter.png", "page/index.html"):
        assert (result / name).is_file(), name
    assert (result / "comparison-made-test.png").is_file()
    assert "ours - sharpened" in captured.out
    assert "published numbers are left out" in captured.out
    rows = json.loads((result / "table.json").read_text())["rows"]
    assert [row["method"] for row in rows] == ["ours", "sharpened"]
    assert "protocol dpdd-8bit" in (result / "methods.txt").read_text()

    def refuse(*_):
        raise AssertionError("restored again")

    monkeypatch.setattr(run, "score_scene", refuse)
    assert main(["evaluate", str(path)]) == 0


def test_several_protocols_give_a_table_each(folder, data_root):
    more = "protocols: [dpdd-8bit, basicsr-y]\ndraw: {scatter: null, sheet: null, page: false}\n"
    assert main(["evaluate", str(write(folder, data_root, more, "{sharpened: {images: outputs}}"))]) == 0
    values = {}
    for name in ("dpdd-8bit", "basicsr-y"):
        (row,) = json.loads((folder / "results" / "mine" / name / "table.json").read_text())["rows"]
        (values[name],) = (entry["psnr"] for title, entry in row["values"].items() if title)
    assert values["dpdd-8bit"] != values["basicsr-y"]


@pytest.mark.parametrize(
    ("more", "methods", "words"),
    [
        ("", "{a: ours.safetensors, a: {images: outputs}}", "the key 'a' is given twice"),
        ("", "{a: ours.safetensors, b: ./ours.safetensors}", "methods.b: 'a' also names ours.safetensors"),
        ("", "{a: gone/ours.safetensors}", "methods.a: gone/ours.safetensors: no such file or folder"),
        ("", "{a: {images: gone}}", "methods.a: gone: no such folder"),
        ("", "{a: {image: outputs}}", "unknown key 'methods.a.image'; did you mean 'methods.a.images'"),
        ("", "{a: {images: outputs, weights: ours.safetensors}}", "expected either 'methods.a.weights'"),
        ("data: {other: {rot: outputs}}\n", METHODS, "the key 'data' is given twice"),
        ("", "{}", "methods"),
        ("protocols: [dpdd-8bits]\n", METHODS, "did you mean 'dpdd-8bit'"),
        ("protocols: [nafnet, nafnet]\n", METHODS, "found 'nafnet' twice"),
        ("metrics: [psrn]\n", METHODS, "metrics"),
        ("draw: {table: {paired: our}}\n", METHODS, "draw.table.paired: no method is called 'our'"),
        ("protocol: nafnet\n", METHODS, "unknown key 'protocol'; did you mean 'protocols'"),
    ],
)
def test_mistakes_are_one_line_before_anything_starts(more, methods, words, folder, data_root):
    path = write(folder, data_root, more, methods)
    with pytest.raises(UserError) as refusal:
        load_comparison(path)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_missing_data_and_outputs_are_found_before_anything_is_restored(folder, data_root, capsys, monkeypatch):
    path = write(folder, folder / "nowhere")
    with pytest.raises(UserError, match=r"data\.made: .*nowhere: no such folder"):
        load_comparison(path)

    def refuse(*_):
        raise AssertionError("restored before all was checked")

    monkeypatch.setattr(run, "score_scene", refuse)
    next((folder / "outputs").iterdir()).unlink()
    assert main(["evaluate", str(write(folder, data_root))]) == 2
    assert "1 of 2 scenes have no output there" in capsys.readouterr().err
    assert main(["evaluate", str(path), "--protocol", "nafnet"]) == 2
    assert "--protocol cannot be given; edit the file" in capsys.readouterr().err


def test_shipped_comparison_is_valid(monkeypatch, tmp_path):
    shipped = Path(__file__).parents[2] / "configs" / "evaluation" / "dpdd.yaml"
    monkeypatch.chdir(tmp_path)
    for name in ("runs/paper_2level", "checkpoints", "outputs/ifan", "data/dd_dp_dataset_canon"):
        Path(name).mkdir(parents=True)
    Path("checkpoints/single_image_defocus_deblurring.pth").touch()
    assert len(load_comparison(shipped).tasks) == 3
