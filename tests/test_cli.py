"""The command line: one line and status 2 for a mistake, results for everything else."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
import yaml

import kpac
from kpac.cli import main, make_parser

ROOT = Path(__file__).parents[1]


@pytest.fixture
def weights(tmp_path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "model.safetensors"
    kpac.save_model(kpac.create_model("kpac_2level", width=4, blocks=1, init="he"), path)
    return path


def fails(capsys, *arguments: object) -> str:
    """Runs a command that must fail as a user's mistake does, and returns its line."""
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as stop:
        status = stop.code
    captured = capsys.readouterr()
    assert status == 2
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if line.startswith("kpac")]
    assert len(lines) == 1
    assert "Traceback" not in captured.err
    return lines[0]


def test_evaluate_writes_results_report_and_picture(capsys, data_root, weights, tmp_path):
    output = tmp_path / "results"
    assert main(["evaluate", str(weights), "--data", str(data_root), "--output", str(output)]) == 0
    results = json.loads((output / "results.json").read_text())
    assert results["protocol"] == "dpdd-8bit"
    assert len(results["images"]) == 2
    for record in results["images"]:
        assert {"name", "psnr", "ssim", "mae", "input"} <= set(record)
        # An untrained "he" network is the identity: its scores are those of the blurred input.
        assert record["psnr"] == pytest.approx(record["input"]["psnr"], abs=1e-3)
    mean = sum(record["psnr"] for record in results["images"]) / 2
    assert results["mean"]["psnr"] == pytest.approx(mean)
    assert set(results["input_mean"]) == {"psnr", "ssim", "mae"}
    assert len(results["model"]["sha256"]) == 64
    report = (output / "report.md").read_text()
    for words in ("dpdd-8bit", results["model"]["sha256"][:16], "parameters", f"torch {torch.__version__}", "photo"):
        assert words in report
    assert (output / "comparison.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert f"{results['mean']['psnr']:.2f}" in printed
    assert "dpdd-8bit" in printed


def test_evaluate_16_bits_differs_and_names_its_protocol(data_root, weights, tmp_path):
    means = {}
    for protocol in ("dpdd-8bit", "dpdd-16bit"):
        output = tmp_path / protocol
        arguments = ["evaluate", weights, "--data", data_root, "--protocol", protocol, "--output", output]
        assert main([str(argument) for argument in arguments]) == 0
        results = json.loads((output / "results.json").read_text())
        assert results["protocol"] == protocol
        means[protocol] = results["mean"]["psnr"]
    assert 0 < abs(means["dpdd-8bit"] - means["dpdd-16bit"]) < 0.1


def test_train_and_evaluate_from_the_command_line(capsys, config_file, data_root, tmp_path):
    assert main(["train", str(config_file), "train.iterations=2"]) == 0
    assert main(["evaluate", str(tmp_path / "runs" / "small"), "--data", str(data_root)]) == 0
    output = tmp_path / "runs" / "small" / "results" / "data set-test-dpdd-8bit"
    assert json.loads((output / "results.json").read_text())["model"]["options"]["width"] == 4


def test_synthesize_takes_the_cameras_settings(tmp_path):
    from tests.conftest import write_photos

    photos = write_photos(tmp_path / "photos", 3, 24, 24)
    arguments = ["--photos", photos, "--output", tmp_path / "set", "--f-number", "4", "--scenes", "4"]
    assert main(["data", "synthesize", *map(str, arguments)]) == 0
    settings = json.loads((tmp_path / "set" / "synthesis.json").read_text())["recipe"]["settings"]
    assert (settings["f_number"], settings["scenes"]) == ([4.0, 4.0], 4)


def test_config_show_prints_what_load_config_reads(capsys, config_file):
    assert main(["config", "show", str(config_file), "train.iterations=77"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["train"]["iterations"] == 77


def test_config_show_finds_what_training_would_refuse(capsys, config_file):
    assert "no loss is called 'l2'" in fails(capsys, "config", "show", config_file, "train.losses={l2: 1}")
    assert "no protocol is called 'foo'" in fails(capsys, "config", "show", config_file, "validation.protocol=foo")


def test_config_schema_is_json(capsys):
    assert main(["config", "schema"]) == 0
    assert "properties" in json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("order", [("--json", "model.blocks=0"), ("model.blocks=0", "--json")])
def test_overrides_may_stand_before_or_after_flags(capsys, config_file, order):
    assert main(["info", str(config_file), *order]) == 0
    assert not any("blocks" in part["name"] for part in json.loads(capsys.readouterr().out)["parts"])


def test_mistakes_are_one_line(capsys, tmp_path, data_root, weights, config_file):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "unknown key 'train.itertions'" in fails(capsys, "train", config_file, "train.itertions=5")
    assert "no such file" in fails(capsys, "train", tmp_path / "gone.yaml")
    assert "no such file or folder" in fails(capsys, "evaluate", tmp_path / "gone", "--data", data_root)
    refusal = fails(capsys, "evaluate", weights, "--data", empty)
    assert f"{empty}: no test split found; expected test_c/source" in refusal
    assert "'dpdd-8bit'" in fails(capsys, "evaluate", weights, "--data", data_root, "--protocol", "dpdd-8bits")
    assert "'tset'" in fails(capsys, "evaluate", weights, "--data", data_root, "--split", "tset")
    assert "invalid choice: 'trian'" in fails(capsys, "trian")
    assert "unrecognized arguments: --fast" in fails(capsys, "train", config_file, "--fast")
    assert "found '0'" in fails(
        capsys, "data", "synthesize", "--photos", "skimage", "--output", empty / "x", "--workers", "0"
    )
    assert "found 'nan'" in fails(
        capsys, "data", "synthesize", "--photos", "skimage", "--output", empty / "x", "--val", "nan"
    )
    assert "--data" in fails(capsys, "evaluate", weights)
    assert "'f_number'" in fails(
        capsys, "data", "synthesize", "--photos", "skimage", "--output", empty / "x", "--f-number", "wide"
    )
    assert f"{empty}: holds 0" in fails(capsys, "data", "synthesize", "--photos", empty, "--output", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_failed_evaluation_leaves_no_results_but_what_is_finished(capsys, data_root, weights, tmp_path):
    import shutil

    root = tmp_path / "damaged"
    shutil.copytree(data_root, root)
    broken = sorted((root / "test_c" / "source").iterdir())[-1]
    broken.write_bytes(broken.read_bytes()[:2000])
    line = fails(capsys, "evaluate", weights, "--data", root, "--output", tmp_path / "results")
    assert f"{broken}: not a whole image file" in line
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["records"]


def test_every_command_explains_itself(capsys):
    parser = make_parser()
    for command in (
        ["train"],
        ["evaluate"],
        ["info"],
        ["convert"],
        ["data", "synthesize"],
        ["config", "show"],
        ["config", "schema"],
    ):
        with pytest.raises(SystemExit) as stop:
            parser.parse_args([*command, "--help"])
        assert stop.value.code == 0
        assert "usage: kpac " + " ".join(command) in capsys.readouterr().out


def test_python_m_kpac_is_the_command_and_help_does_not_wait_for_pytorch():
    code = "import sys; from kpac.cli import make_parser; make_parser(); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
    version = subprocess.run([sys.executable, "-m", "kpac", "--version"], capture_output=True, text=True)
    assert version.stdout.strip() == f"kpac {kpac.__version__}"


def test_processes_that_tests_start_run_this_checkout(tmp_path):
    code = "import kpac; print(kpac.__file__)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path).stdout.strip()
    assert found == str(ROOT / "kpac" / "__init__.py")


@pytest.mark.parametrize(("rank", "times"), [("0", 1), ("1", 0)])
def test_notice_is_the_first_process_s_to_give(capsys, monkeypatch, tmp_path, rank, times):
    from kpac.data.layouts import find_scenes
    from tests.conftest import write_photos

    for folder in ("source", "target"):
        write_photos(tmp_path / folder, 1, 8, 8)
    (tmp_path / "source" / "photo 0.png").rename(tmp_path / "source" / "photo 0 blur.png")
    monkeypatch.setenv("RANK", rank)
    assert main(["config", "schema"]) == 0
    find_scenes(tmp_path, "test")
    assert capsys.readouterr().err.count("names pair as photo 0 blur and photo 0") == times


def test_info_counts_a_configuration_and_a_model(capsys, weights):
    paper = ROOT / "configs" / "paper" / "kpac_2level.yaml"
    assert main(["info", str(paper), "--size", "64x96", "--json"]) == 0
    cost = json.loads(capsys.readouterr().out)
    assert (cost["parameters"], cost["height"], cost["width"]) == (1_578_277, 64, 96)
    assert sum(part["macs"] for part in cost["parts"]) == cost["macs"]
    assert main(["info", str(paper), "model.blocks=3"]) == 0
    table = capsys.readouterr().out
    assert f"{1_578_277 + 448_145 + 9 * 96 * 96:,}" in table
    assert "blocks.2.scale_attention" in table
    assert main(["info", str(weights)]) == 0
    assert "1120x1680" in capsys.readouterr().out
    assert "expected HEIGHTxWIDTH" in fails(capsys, "info", paper, "--size", "64")
    assert "needs a YAML file; the options of weights are fixed" in fails(capsys, "info", weights, "model.blocks=3")


def test_convert_reads_and_writes_the_authors_format(capsys, tmp_path):
    sample = ROOT / "tests" / "data" / "2level_small_authors_format.npz"
    ours, theirs, again = tmp_path / "m.safetensors", tmp_path / "m.npz", tmp_path / "again.safetensors"
    assert main(["convert", str(sample), str(ours)]) == 0
    assert "kpac_2level, width 16, 3 blocks" in capsys.readouterr().err
    assert main(["convert", str(ours), str(theirs), "--authors"]) == 0
    assert main(["convert", str(theirs), str(again)]) == 0
    first, second = kpac.load_model(ours).state_dict(), kpac.load_model(again).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    capsys.readouterr()
    assert "--authors writes it" in fails(capsys, "convert", ours, tmp_path / "x.safetensors")
    assert "gone.npz: no such file" in fails(capsys, "convert", tmp_path / "gone.npz", tmp_path / "x.safetensors")
    assert f"{tmp_path}: is a folder" in fails(capsys, "convert", tmp_path, tmp_path / "x.safetensors")
    assert f"'kpac convert {theirs} {ours}' converts an authors' checkpoint" in fails(capsys, "info", theirs)
    assert not (tmp_path / "x.safetensors").exists()


def test_convert_keeps_what_is_there(capsys, weights, tmp_path):
    before = weights.read_bytes()
    other = tmp_path / "other.npz"
    other.write_text("years of work")
    assert "--overwrite replaces it" in fails(capsys, "convert", weights, other, "--authors")
    assert other.read_text() == "years of work"
    assert "ends in .npz" in fails(capsys, "convert", weights, weights, "--authors", "--overwrite")
    assert "with --authors an .npz file" in fails(capsys, "convert", weights, tmp_path / "new.npz")
    assert "ends in .safetensors" in fails(capsys, "convert", other, other, "--overwrite")
    assert weights.read_bytes() == before
    assert main(["convert", str(weights), str(other), "--authors", "--overwrite"]) == 0
    assert main(["convert", str(other), str(tmp_path / "again.safetensors")]) == 0


def interrupted(command: list[str], ready, timeout: float = 60) -> subprocess.CompletedProcess:
    """Runs a command until `ready()` and interrupts all of its processes, as Ctrl-C in a terminal does."""
    return stopped(command, ready, lambda run: os.killpg(run.pid, signal.SIGINT), timeout)


def stopped(command: list[str], ready, stop, timeout: float = 60) -> subprocess.CompletedProcess:
    """Runs a command until `ready()`, and then `stop(process)`."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as run:
        deadline = time.monotonic() + timeout
        while not ready() and run.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        stop(run)
        output, errors = run.communicate(timeout=60)
    return subprocess.CompletedProcess(command, run.returncode, output, errors)


def test_interrupted_training_says_so_in_one_line(config_file, tmp_path):
    metrics = tmp_path / "runs" / "small" / "metrics.jsonl"
    command = [sys.executable, "-m", "kpac", "train", str(config_file), "train.iterations=100000", "data.workers=2"]
    found = interrupted(command, lambda: metrics.exists() and metrics.stat().st_size)
    assert found.returncode == 130
    assert "kpac: interrupted" in found.stderr
    assert "Traceback" not in found.stderr


@pytest.fixture
def synthesis(tmp_path) -> list[str]:
    """A command that renders for a while, two processes at a time."""
    from tests.conftest import write_photos

    photos = write_photos(tmp_path / "photos", 12, 200, 300)
    arguments = ["--photos", photos, "--output", tmp_path / "set"]
    return [sys.executable, "-m", "kpac", "data", "synthesize", *map(str, arguments)]


def test_interrupted_synthesis_leaves_nothing(synthesis, tmp_path):
    found = interrupted(synthesis, lambda: any((tmp_path / "set.partial").rglob("*.png")))
    assert found.returncode == 130
    assert "Traceback" not in found.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_synthesis_that_is_ended_leaves_no_process(synthesis, tmp_path, number):
    workers = []

    def end(run: subprocess.Popen) -> None:
        workers.extend(psutil.Process(run.pid).children())
        run.send_signal(number)

    found = stopped(synthesis, lambda: any((tmp_path / "set.partial").rglob("*.png")), end)
    assert len(workers) >= 2
    assert psutil.wait_procs(workers, timeout=20)[1] == []
    if number == signal.SIGTERM:
        assert found.returncode == 143
        assert found.stderr.splitlines()[-1] == "kpac: stopped by SIGTERM"
        assert "Traceback" not in found.stderr
        assert sorted(path.name for path in tmp_path.iterdir()) == ["photos"]


def test_interrupt_while_the_command_is_imported_is_one_line():
    code = """
import sys

class Interrupt:
    def find_spec(self, name, *_):
        if name == "kpac.commands":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
from kpac.__main__ import main
sys.exit(main())
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (found.returncode, found.stderr) == (130, "\nkpac: interrupted\n")
