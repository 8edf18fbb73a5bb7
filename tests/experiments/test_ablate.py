"""`kpac ablate` does what is left, loses nothing, and reports means over seeds."""

import csv
import itertools
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from kpac.cli import main
from kpac.experiments import jobs, progress
from kpac.experiments.sweep import load_sweep
from kpac.models.weights import read_weights_header
from tests.test_cli import fails

ROOT = Path(__file__).parents[2]


def test_sweep_ends_in_tables_and_a_curve_over_the_seeds(sweep_file, short, tmp_path, capsys):
    assert main(["ablate", str(sweep_file), *short]) == 0
    folder = tmp_path / "runs" / "sweep"
    printed = capsys.readouterr().out
    assert (folder / "table.md").read_text() in printed + "\n"
    assert "4 of 4 runs are finished" in printed
    with (folder / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == ["blocks 0", "blocks 1"]
    for blocks, row in enumerate(rows):
        scores = []
        for seed in (0, 1):
            (path,) = (folder / f"blocks-{blocks}-seed{seed}").glob("results/*/results.json")
            results = json.loads(path.read_text())
            assert results["model"]["options"]["blocks"] == blocks
            scores.append(results["mean"]["psnr"])
        (mean,) = (value for key, value in row.items() if key.endswith(" psnr"))
        (deviation,) = (value for key, value in row.items() if key.endswith(" psnr deviation"))
        assert float(mean) == pytest.approx(statistics.mean(scores))
        assert float(deviation) == pytest.approx(statistics.stdev(scores))
    assert r"$\pm$" in (folder / "table.tex").read_text()
    assert (folder / "curve.pdf").read_bytes().startswith(b"%PDF")
    pictures = "curve.png, curve.pdf, quality_against_parameters.png, quality_against_parameters.pdf"
    assert f"{folder}: table.md, table.tex, table.csv, table.json, {pictures}\n" in printed

    # Finished runs are not repeated.
    times = {path: path.stat().st_mtime_ns for path in folder.glob("blocks-*/**/*") if path.is_file()}
    assert main(["ablate", str(sweep_file), *short]) == 0
    assert {path: path.stat().st_mtime_ns for path in times} == times

    # Nor are they taken for runs of another configuration.
    assert main(["ablate", str(sweep_file), *short, "train.iterations=3"]) == 2
    assert "train.iterations 2 -> 3" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_runs_are_scored_on_every_data_set_and_compared_image_by_image(sweep_file, short, tmp_path, capsys):
    sweep_file.write_text(sweep_file.read_text() + "evaluation: [{split: test}, {split: val}]\n")
    assert main(["ablate", str(sweep_file), *short]) == 0
    folder = tmp_path / "runs" / "sweep"
    scores = {}  # (blocks, split) -> PSNR of every image, means over the seeds
    for blocks, split in itertools.product((0, 1), ("test", "val")):
        files = sorted(folder.glob(f"blocks-{blocks}-seed*/results/*-{split}-*/results.json"))
        images = [json.loads(path.read_text())["images"] for path in files]
        assert len(images) == 2
        scores[blocks, split] = [statistics.mean(image["psnr"] for image in same) for same in zip(*images, strict=True)]
    table = json.loads((folder / "table.json").read_text())
    splits = {over: over.split()[-1] for over in table["rows"][0]["values"] if over}
    assert list(splits.values()) == ["test", "val"]
    for blocks, row in enumerate(table["rows"]):
        for over, split in splits.items():
            assert row["values"][over]["psnr"] == pytest.approx(statistics.mean(scores[blocks, split]))
            assert row["values"][over]["psnr deviation"] > 0
    assert [(test["label"], test["other"], test["quantity"]) for test in table["tests"]] == [
        ("blocks 1", "blocks 0", "psnr")
    ] * len(table["tests"])
    compared = {splits[test["over"]]: test["difference"] for test in table["tests"]}
    for split in [split for split in splits.values() if len(scores[0, split]) > 1]:
        difference = statistics.mean(scores[1, split]) - statistics.mean(scores[0, split])
        assert compared[split]["mean"] == pytest.approx(difference)
    assert compared
    assert (folder / "curve.png").is_file()
    assert len(list(folder.glob("curve-*val.png"))) == 1

    # A missing evaluation is made up for, without the others and without a training.
    (missing,) = folder.glob("blocks-1-seed0/results/*-val-*/results.json")
    missing.unlink()
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("*/**/*.safetensors")}
    kept |= {path: path.stat().st_mtime_ns for path in folder.glob("*/results/*-test-*/results.json")}
    assert main(["ablate", str(sweep_file), *short]) == 0
    assert missing.is_file()
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_dry_run_shows_the_plan_and_writes_nothing(sweep_file, tmp_path, capsys):
    assert main(["ablate", str(sweep_file), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:6]] == [
        f"blocks {blocks}, seed {seed}" for blocks in (0, 1) for seed in (0, 1)
    ]
    assert all("planned" in line for line in lines[2:6])
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("flags", [[], ["--dry-run"]], ids=["run", "plan"])
@pytest.mark.parametrize("missing", ["root", "val", "data to score on"])
def test_missing_data_is_one_line_before_anything_starts(missing, flags, sweep_file, data_root, tmp_path, capsys):
    words = [f"data.root={tmp_path / 'nowhere'}"]
    expected = "nowhere: no such folder; expected a data set"
    if missing == "val":
        words = [f"data.root={shutil.copytree(data_root, tmp_path / 'part')}"]
        shutil.rmtree(tmp_path / "part" / "val_c")
        expected = "part: no val split found"
    if missing == "data to score on":
        sweep_file.write_text(sweep_file.read_text() + f"evaluation: {{data: {tmp_path / 'nowhere'}}}\n")
        words = []
    line = fails(capsys, "ablate", sweep_file, *words, *flags)
    assert expected in line
    assert not (tmp_path / "runs").exists()


def test_results_of_an_older_format_are_computed_again_and_no_others(sweep_file, short, tmp_path, capsys):
    sweep_file.write_text(sweep_file.read_text().replace("seeds: [0, 1]", "seeds: [0]"))
    assert main(["ablate", str(sweep_file), *short]) == 0
    old, fine = (next((tmp_path / "runs" / "sweep").glob(f"blocks-{count}/results/*/results.json")) for count in (0, 1))
    content = json.loads(old.read_text())
    del content["format"]
    old.write_text(json.dumps(content))
    before = fine.stat().st_mtime_ns
    assert main(["ablate", str(sweep_file), *short]) == 0
    assert "1 of 2 runs to do" in capsys.readouterr().err
    assert json.loads(old.read_text())["format"] == 1
    assert fine.stat().st_mtime_ns == before


def test_what_is_said_to_be_written_is_there(sweep_file, short, tmp_path, capsys):
    sweep_file.write_text(sweep_file.read_text().replace("[0, 1]", "[0]", 2))
    folder = tmp_path / "runs" / "sweep"
    assert main(["ablate", str(sweep_file), *short]) == 0
    assert f"{folder}: table.md, table.tex, table.csv, table.json\n" in capsys.readouterr().out
    assert not list(folder.glob("curve.*"))  # of a single setting


def test_failed_run_is_reported_and_can_be_retried(sweep_file, short, tmp_path, capsys, monkeypatch):
    sweep_file.write_text(sweep_file.read_text().replace("seeds: [0, 1]", "seeds: [0]"))
    words = [*short, "data.crop=100"]  # larger than the images
    assert main(["ablate", str(sweep_file), *words]) == 1
    errors = capsys.readouterr().err
    assert errors.count("--retry tries it again") == 2
    assert "crop" in progress.failure_of(load_sweep(sweep_file, words).runs[0])
    called = []
    monkeypatch.setattr(jobs.Job, "__call__", lambda job, *_: called.append(job))
    assert main(["ablate", str(sweep_file), *words]) == 1
    assert not called
    main(["ablate", str(sweep_file), *words, "--retry"])
    assert len(called) == 2


def test_interrupted_sweep_goes_on_where_it_was(sweep_file, tmp_path):
    words = ["train.iterations=400", "train.checkpoint.every=5", "validation.every=400", "validation.samples=0"]
    command = [sys.executable, "-m", "kpac", "ablate", str(sweep_file), *words]
    folder = tmp_path / "runs" / "sweep" / "blocks-0-seed0"
    with subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    ) as process:
        while process.poll() is None and not list(folder.glob("checkpoints/*.pt")):
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        errors = process.communicate(timeout=120)[1]
    assert process.returncode == 143
    assert "0 of 4 runs are finished; repeat the command to continue" in errors
    (run, *_) = load_sweep(sweep_file, words).runs
    assert progress.state_of(run) == "begun"
    (resume,) = list(jobs.Job(run).commands())[:1]
    assert resume == ["train", "--resume", str(folder)]
    before = read_weights_header(folder / "checkpoints" / "last.safetensors") if progress.is_trained(run) else None
    assert before is None


def test_run_that_was_killed_before_its_first_checkpoint_begins_anew(sweep_file, short, tmp_path):
    run = load_sweep(sweep_file, short).runs[0]
    run.folder.mkdir(parents=True)
    (run.folder / "config.yaml").write_text((tmp_path / "small.yaml").read_text())
    command, *_ = jobs.Job(run).commands()
    assert command[-1] == "--overwrite"
    jobs.Job(run)()
    assert progress.state_of(run) == "finished"


def test_jobs_of_submitit_do_the_same(sweep_file, short, tmp_path):
    sweep_file.write_text(sweep_file.read_text().replace("[0, 1]", "[0]"))
    assert main(["ablate", str(sweep_file), *short, "--executor", "local", "--at-once", "2"]) == 0
    assert {progress.state_of(run) for run in load_sweep(sweep_file, short).runs} == {"finished"}
    assert (tmp_path / "runs" / "sweep" / "table.md").is_file()


def test_job_of_slurm_that_still_runs_is_found_again(sweep_file, short, tmp_path):
    run = load_sweep(sweep_file, short).runs[0]
    job = jobs.Job(run)

    class Executor:
        def job_class(self, folder, number):
            return types.SimpleNamespace(folder=folder, job_id=number, done=lambda: number == "1")

    assert jobs.job_of(job, Executor(), tmp_path) is None
    progress.job_file(run).parent.mkdir(parents=True)
    progress.job_file(run).write_text("1")
    assert jobs.job_of(job, Executor(), tmp_path) is None
    progress.job_file(run).write_text("2")
    assert jobs.job_of(job, Executor(), tmp_path).job_id == "2"


def test_crashed_job_is_a_failed_run(sweep_file, short, tmp_path, monkeypatch, capsys):
    class Crashing(jobs.Job):  # of this function, so that it travels to the job's process by value
        def __call__(self, *_) -> None:
            os._exit(3)

    monkeypatch.setattr(jobs, "Job", Crashing)
    sweep_file.write_text(sweep_file.read_text().replace("[0, 1]", "[0]"))
    assert main(["ablate", str(sweep_file), *short, "--executor", "local"]) == 1
    assert "failed" in capsys.readouterr().err


def test_unknown_parameter_of_jobs_is_one_line(sweep_file, short, capsys):
    sweep_file.write_text(sweep_file.read_text() + "slurm: {gpus: 3}\n")
    assert main(["ablate", str(sweep_file), *short, "--executor", "local"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("kpac: slurm: ")
    assert "gpus" in error
