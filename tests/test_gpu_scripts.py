"""The checks for a GPU run to their end without one, and say of each step how it went."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import ROOT, write_photos


def checks(output: Path, *words: str) -> tuple[int, dict[str, str], str]:
    """Exit status, result of each step, and what was printed."""
    command = [ROOT / "scripts" / "check_gpu.sh", "--output", output, *words]
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(list(map(str, command)), env=environment, capture_output=True, text=True)
    entries = json.loads((output / "checks.json").read_text())
    return done.returncode, {entry["step"]: entry["result"] for entry in entries}, done.stdout + done.stderr


def test_checks_end_without_a_gpu_and_skip_what_needs_one(tmp_path):
    status, results, printed = checks(tmp_path / "out")
    assert status == 0, printed
    assert results.pop("environment") == "PASS"
    assert len(results) == 8
    assert set(results.values()) == {"SKIP"}
    assert printed.count("needs a CUDA device") == 8
    assert (tmp_path / "out" / "checks.md").read_text().count("| SKIP |") == 8


@pytest.mark.slow
def test_every_step_passes_in_its_rehearsal(tmp_path):
    status, results, printed = checks(tmp_path / "out", "--rehearse")
    assert set(results.values()) == {"PASS"}, printed
    assert status == 0


@pytest.fixture
def script(tmp_path, monkeypatch) -> ModuleType:
    """scripts/check_gpu.py, with steps that do as their names say."""
    spec = importlib.util.spec_from_file_location("check_gpu", ROOT / "scripts" / "check_gpu.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "check_gpu", module)
    spec.loader.exec_module(module)
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "gpu_steps.py").write_text(
        "import json, subprocess, sys, time\n"
        "step = sys.argv[1]\n"
        "if step == 'hangs':\n"
        "    subprocess.run(['sleep', '60'])\n"
        "if step == 'crashes':\n"
        "    sys.exit(3)\n"
        "print(json.dumps({'ok': step == 'passes', 'figure': '7 ms'}))\n"
    )
    monkeypatch.setattr(module, "ROOT", tmp_path)
    return module


@pytest.mark.parametrize(
    ("step", "result", "words"),
    [
        ("passes", "PASS", "7 ms"),
        ("fails", "FAIL", "7 ms"),
        ("crashes", "FAIL", "ended with status 3"),
        ("hangs", "FAIL", "not done after 2 s"),
    ],
)
def test_step_is_reported_however_it_ends(script, tmp_path, step, result, words):
    outcome = script.run(step, tmp_path, "cpu", rehearse=False, limit=2 if step == "hangs" else 60)
    assert outcome.result == result
    assert outcome.figure.startswith(words)
    assert outcome.seconds < 30


@pytest.mark.slow
def test_training_on_another_machine_leaves_weights_and_results(tmp_path):
    photos = write_photos(tmp_path / "photos", 6)
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    for name in ("train_on_gpu.sh", "gpu_packages.sh"):  # as they are, committed or not
        (clone / "scripts" / name).write_bytes((ROOT / "scripts" / name).read_bytes())
    words = ["model.width=4", "model.blocks=1", "data.crop=32", "train.batch_size=2", "train.optimizer.groups={}"]
    environment = {**os.environ, "PYTHON": sys.executable, "DEVICE": "cpu", "PROBE": "4", "OUT": str(tmp_path / "out")}
    environment["PYTHONPATH"] = str(clone)
    command = ["bash", str(clone / "scripts" / "train_on_gpu.sh"), str(photos), "0.05", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kept = {path.name for path in (tmp_path / "out" / "train-on-gpu-center").iterdir()}
    assert {"best.safetensors", "config.yaml", "run.json", "metrics.jsonl", "results.json", "report.md"} <= kept
