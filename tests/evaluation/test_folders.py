"""No result replaces another without being asked to."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import kpac
from kpac.cli import main
from kpac.images import read_pixels
from tests.test_cli import fails


def write_network(path: Path, seed: int) -> Path:
    """A small network's weights."""
    torch.manual_seed(seed)
    kpac.save_model(kpac.create_model("kpac_2level", width=4, blocks=1), path)
    return path


@pytest.fixture
def runs(tmp_path) -> list[Path]:
    """Folders of two runs, as far as an evaluation looks into them."""
    folders = [tmp_path / "runs" / name for name in ("m0", "m1")]
    for seed, folder in enumerate(folders):
        for weights in ("best", "last"):
            write_network(folder / "checkpoints" / f"{weights}.safetensors", seed)
        (folder / "config.yaml").write_text("")
    return folders


def evaluate(*words: object) -> int:
    return main(["evaluate", *map(str, words), "--device", "cpu"])


def label_in(folder: Path) -> str:
    return json.loads((folder / "results.json").read_text())["label"]


def test_weights_of_several_runs_carry_the_names_of_the_runs(runs, data_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    best = [Path("runs") / run.name / "checkpoints" / "best.safetensors" for run in runs]
    last = best[0].with_stem("last")
    assert evaluate(*best, last, "--data", data_root) == 0
    name = "data set-test-dpdd-8bit"
    assert [label_in(run / "results" / name) for run in runs] == ["m0", "m1"]
    assert label_in(tmp_path / "results" / "m0-last" / name) == "m0-last"


@pytest.mark.parametrize("words", [[], ["--output", "multi"]], ids=["default", "--output"])
def test_two_results_for_one_folder_are_refused_before_any_is_computed(words, data_root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    files = [write_network(tmp_path / name / "net.safetensors", seed) for seed, name in enumerate("ab")]
    line = fails(capsys, "evaluate", *files, "--data", data_root, *words)
    assert f"both a/net.safetensors on {data_root}" in line
    assert f"and b/net.safetensors on {data_root}" in line
    assert "--output" in line
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "multi").exists()


@pytest.mark.parametrize("other", ["model", "protocol", "data"])
def test_results_of_something_else_are_not_replaced_unless_asked(other, runs, data_root, tmp_path, capsys):
    output = tmp_path / "out"
    assert evaluate(runs[0], "--data", data_root, "--output", output, "--save-images") == 0
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    model, data, protocol = runs[0], data_root, "dpdd-8bit"
    if other == "model":
        model = runs[1]
    elif other == "protocol":
        protocol = "saved-png-8bit"
    else:
        data = shutil.copytree(data_root, tmp_path / "other set")
    words = [model, "--data", data, "--protocol", protocol, "--output", output]
    capsys.readouterr()
    line = fails(capsys, "evaluate", *words)
    assert f"{output}/results.json: holds the results of {runs[0]}/checkpoints/best.safetensors on {data_root}" in line
    assert f"not of {model}/checkpoints/best.safetensors on {data}, test split, under {protocol}" in line
    assert "--overwrite" in line
    assert {path: path.read_bytes() for path in before} == before
    assert evaluate(*words, "--overwrite") == 0
    assert f"replaces the results of {runs[0]}" in capsys.readouterr().err
    assert list((output / "images").iterdir()) == []  # a figure would take them for the new results'


def test_images_kept_of_one_model_are_never_those_of_another(runs, data_root, tmp_path):
    output = tmp_path / "out"
    for run in (*runs, runs[0]):
        assert evaluate(run, "--data", data_root, "--output", output, "--save-images", "--overwrite") == 0
    assert evaluate(runs[0], "--data", data_root, "--output", tmp_path / "fresh", "--save-images") == 0
    for path in (tmp_path / "fresh" / "images").iterdir():
        assert (read_pixels(path) == read_pixels(output / "images" / path.name)).all()


def test_a_model_replaces_its_own_results_and_takes_those_that_are_there(runs, data_root, tmp_path, capsys):
    best = runs[0] / "checkpoints" / "best.safetensors"
    words = ["--data", data_root, "--output", tmp_path / "out"]
    assert evaluate(runs[0], *words) == 0
    write_network(best, 7)
    assert evaluate(runs[0], *words) == 0
    assert "replaces the results of" in capsys.readouterr().err
    assert evaluate(shutil.copy(best, tmp_path / "copy.safetensors"), *words) == 0
    assert "replaces" not in capsys.readouterr().err


def test_training_anew_clears_the_run_of_its_results(config_file, data_root, tmp_path):
    run = tmp_path / "runs" / "small"
    for seed in range(2):
        words = ["train.iterations=2", "validation.every=2", f"seed={seed}", "--overwrite"]
        assert main(["train", str(config_file), *words]) == 0
        assert not (run / "results.json").exists()
        assert evaluate(run, "--data", data_root, "--output", run) == 0
