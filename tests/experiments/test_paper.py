"""`kpac reproduce paper` says what it needs, refuses another data set, and puts the published numbers beside ours."""

import json
import os

import numpy as np
import pytest

from kpac.cli import main
from kpac.data import published
from kpac.data.pairing import published_pairs
from kpac.images import from_float, write_pixels
from kpac.models.registry import create_model
from kpac.models.weights import save_model
from tests.conftest import texture

SIZE = 40, 56  # height and width of the thumbnails


@pytest.fixture
def dpdd(tmp_path, monkeypatch):
    """The published test split by name, center views only, with thumbnails for images."""
    height, width = SIZE
    sizes = {f"{width}x{height}", f"{height}x{width}"}
    monkeypatch.setattr(published, "SIZES", sizes)
    (tmp_path / "site").mkdir()  # evaluations are processes of their own; Python runs this file when it starts
    code = f"import kpac.data.published\nkpac.data.published.SIZES = {sizes}\n"
    (tmp_path / "site" / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), os.environ["PYTHONPATH"]]))
    root = tmp_path / "DPDD"
    for seed, (name, target) in enumerate(published_pairs()["test"].items()):
        sharp = texture(*SIZE, seed)
        blurred = (sharp + np.roll(sharp, 1, axis=0) + np.roll(sharp, 2, axis=1)) / 3
        write_pixels(root / "test_c" / "source" / f"{name}.png", from_float(blurred, 16))
        write_pixels(root / "test_c" / "target" / f"{target}.png", from_float(sharp, 16))
    return root


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "mine.safetensors"
    save_model(create_model("kpac_2level", width=4, blocks=1, init="he"), path)
    return path


def reproduce(*words, runs) -> int:
    return main(["reproduce", "paper", *map(str, words), f"runs={runs}"])


def test_given_checkpoint_is_tabled_beside_the_published_numbers(dpdd, checkpoint, tmp_path, capsys):
    words = ["--dpdd", dpdd, "--network", "kpac_2level", "--checkpoint", checkpoint]
    assert reproduce(*words, runs=tmp_path / "runs") == 0
    captured = capsys.readouterr()
    assert f"needs: DPDD's test split in {dpdd}" in captured.err
    assert "this is the published DPDD test split, complete (76 scenes)" in captured.err
    assert "KPAC, single image †" in captured.out
    assert "25.24" in captured.out
    folder = tmp_path / "runs" / "paper"
    rows = json.loads((folder / "table.json").read_text())["rows"]
    (ours,) = (row for row in rows if not row["published"] and row["method"] != "blurred input")
    values = ours["values"]["DPDD test"]
    assert values["difference"] == pytest.approx(values["psnr"] - 25.24)
    for name in ("table.tex", "table.csv", "quality_against_cost.pdf"):
        assert (folder / name).is_file()
    (path,) = folder.glob("kpac_2level/results/*/results.json")
    before = path.stat().st_mtime_ns
    assert reproduce(*words, runs=tmp_path / "runs") == 0
    assert path.stat().st_mtime_ns == before


def test_dry_run_states_the_needs_and_the_cost_and_writes_nothing(dpdd, tmp_path, capsys):
    words = ["--dpdd", dpdd, "--network", "kpac_2level", "--network", "kpac_3level", "--dry-run"]
    assert reproduce(*words, runs=tmp_path / "runs") == 0
    captured = capsys.readouterr()
    assert "to train kpac_2level, kpac_3level" in captured.err
    assert captured.out.count("600,000") == 2
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("mistake", ["missing scene", "no training split", "other data", "no folder", "network", "npz"])
def test_mistakes_are_one_line_before_anything_starts(mistake, dpdd, checkpoint, data_root, tmp_path, capsys):
    words = {"--dpdd": dpdd, "--network": "kpac_2level", "--checkpoint": checkpoint}
    if mistake == "missing scene":
        for path in ("source/1P0A0917.png", "target/1P0A0916.png"):
            (dpdd / "test_c" / path).unlink()
        expected = "1P0A0917"
    elif mistake == "no training split":
        del words["--checkpoint"]
        expected = "no train split"
    elif mistake == "other data":
        words["--dpdd"] = data_root
        expected = "its file names differ"
    elif mistake == "no folder":
        words["--dpdd"] = tmp_path / "gone"
        expected = "gone"
    elif mistake == "network":
        words["--network"] = "kpac_2levels"
        expected = "did you mean 'kpac_2level'"
    else:
        words["--checkpoint"] = tmp_path / "single_2level.npz"
        expected = "kpac convert"
    assert reproduce(*(part for pair in words.items() for part in pair), runs=tmp_path / "runs") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("kpac: ")
    assert expected in error
    assert not (tmp_path / "runs").exists()
