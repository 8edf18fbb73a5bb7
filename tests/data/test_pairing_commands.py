"""Every command pairs the images of a data set in the same way.

Each scene has a size of its own, so that no command can pair two scenes, and a target that is brighter than its input
by an amount of its own, so that scores tell which target they are of.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import kpac
from kpac.cli import main
from kpac.experiments.sweep import load_sweep
from kpac.images import write_pixels
from tests.conftest import texture
from tests.test_cli import fails

NUMBERS = (1, 2, 10)  # sorted as text, 10_blur is before 1_blur and 10 after 1
BRIGHTER = {number: 3 * place for place, number in enumerate(NUMBERS, 1)}  # of 255
FAMILIES = {  # names of inputs, names of targets, whether order alone can pair them
    "suffix": ("{}_blur", "{}", False),
    "both sides": ("scene {}_défocus", "scene {}_net", False),
    "order": ("IMG_{:03}", "DSC{:05}_net", True),
}


def write_set(root: Path, one: str, other: str, by_order: bool) -> Path:
    for seed, split in zip((0, 100, 200), ("train", "val", "test"), strict=True):
        for number in NUMBERS:
            pixels = 40 + np.rint(150 * texture(32, 32 + 4 * number, seed + number)).astype(np.uint8)
            write_pixels(root / split / "input" / f"{one.format(number)}.png", pixels)
            shown = number + 7000 if by_order else number  # other numbers in the same order: names tell nothing
            write_pixels(root / split / "target" / f"{other.format(shown)}.png", pixels + np.uint8(BRIGHTER[number]))
    return root


@pytest.fixture(params=FAMILIES.values(), ids=FAMILIES)
def family(request, tmp_path) -> tuple[Path, str, list[str]]:
    """A data set, the form of its inputs' names, and the flags that its commands need."""
    one, other, by_order = request.param
    return write_set(tmp_path / "set", one, other, by_order), one, ["--pair-by-order"] if by_order else []


def brighter_by(results: dict, form: str) -> dict[int, float]:
    """How much brighter each scene's target was than its input, of 255."""
    found = {record["name"]: 255 * record["input"]["mae"] for record in results["images"]}
    return {number: found[form.format(number)] for number in NUMBERS}


def test_check_training_evaluation_and_pages_pair_alike(family, tmp_path, config_file, capsys):
    root, form, flags = family
    if flags:
        assert "--pair-by-order" in fails(capsys, "evaluate", "--data", root, "--output", tmp_path / "none")
    assert main(["data", "check", str(root), "--json", *flags]) == 0
    assert json.loads(capsys.readouterr().out)["ok"]

    short = [f"data.root={root}", f"data.pair_by_order={json.dumps(bool(flags))}"]
    short += ["data.crop=16", "train.iterations=1", "validation.every=1", "train.schedule.warmup=0"]
    assert main(["train", str(config_file), *short]) == 0
    run = tmp_path / "runs" / "small"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (validated,) = (line["psnr"] for line in lines if line["kind"] == "val")

    results = {}
    for split in ("val", "test"):
        place = tmp_path / "results" / split
        assert main(["evaluate", str(run), "--data", str(root), "--split", split, "--output", str(place), *flags]) == 0
        results[split] = json.loads((place / "results.json").read_text())
        assert brighter_by(results[split], form) == pytest.approx(BRIGHTER, abs=1e-3)
    assert validated == pytest.approx(results["val"]["mean"]["psnr"], abs=1e-3)

    assert main(["evaluate", str(run), "--output", str(tmp_path / "own")]) == 0  # on the run's own data
    assert brighter_by(json.loads((tmp_path / "own" / "results.json").read_text()), form) == pytest.approx(
        BRIGHTER, abs=1e-3
    )

    pages = tmp_path / "pages"
    assert main(["view", str(tmp_path / "results" / "test"), "--restore", "--output", str(pages)]) == 0
    index = (pages / "index.html").read_text(encoding="utf-8")
    assert all(form.format(number) in index for number in NUMBERS)

    sheets = tmp_path / "sheets"
    assert main(["inspect", str(run), "--data", str(root), "-o", str(sheets), *flags]) == 0
    names = {image["name"] for image in json.loads((sheets / "inspect.json").read_text())["images"]}
    assert names == {form.format(number) for number in NUMBERS}


def test_sweep_and_comparison_pair_as_their_files_say(tmp_path, config_file, capsys):
    root = write_set(tmp_path / "set", *FAMILIES["order"])
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(f"name: s\nbase: {config_file}\naxes: {{model.blocks: [0]}}\n")
    assert "--pair-by-order" in fails(capsys, "ablate", sweep, f"data.root={root}", "--dry-run")
    words = [f"data.root={root}", "data.pair_by_order=true", "data.layout=paired"]
    assert main(["ablate", str(sweep), *words, "--dry-run"]) == 0
    (planned,) = load_sweep(sweep, words).runs
    assert planned.evaluations[0].flags[-3:] == ("--layout", "paired", "--pair-by-order")

    torch.manual_seed(0)
    weights = tmp_path / "model.safetensors"
    kpac.save_model(kpac.create_model("kpac_2level", width=4, blocks=1, init="he"), weights)
    comparison = tmp_path / "comparison.yaml"
    file = f"name: c\noutput: {tmp_path / 'out'}\nmethods: {{ours: {{weights: {weights}}}}}\n"
    comparison.write_text(f"{file}data: {{own: {{root: {root}, pair_by_order: true}}}}\ndraw: {{page: true}}\n")
    assert main(["evaluate", str(comparison), "--device", "cpu"]) == 0
    (found,) = (tmp_path / "out").rglob("results.json")
    assert brighter_by(json.loads(found.read_text()), FAMILIES["order"][0]) == pytest.approx(BRIGHTER, abs=1e-3)


def test_pairing_without_a_data_set_is_one_line(capsys, tmp_path):
    line = fails(capsys, "inspect", "--pair-by-order", "-o", tmp_path / "out")
    assert "--pair-by-order: expected --data" in line
