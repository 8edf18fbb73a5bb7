"""A run that ends early, however it ends, continues to the same bits; and never by accident with something else."""

import json
import os
import pty
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from kpac.cli import main
from kpac.commands.remedies import explain
from kpac.config import load_config
from kpac.cpu import missing
from kpac.cpu.layers import FastNet
from kpac.errors import UserError
from kpac.models.network import KPACNet
from kpac.models.weights import load_model, read_weights_header
from kpac.signals import StopRequest
from kpac.training.checkpoint import Checkpoints, read_checkpoint
from kpac.training.run_folder import resumed_config
from kpac.training.trainer import Trainer, train

ROOT = Path(__file__).parents[2]
KPAC = "import sys, torch; torch.set_num_threads(2); from kpac.cli import main; sys.exit(main(sys.argv[1:]))"


def kpac(*arguments: object, **environment: object) -> subprocess.CompletedProcess:
    """The command in a process of its own, with as many threads as the tests have."""
    command = [sys.executable, "-c", KPAC, *map(str, arguments)]
    variables = {**os.environ, **{key: str(value) for key, value in environment.items()}}
    return subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, text=True, timeout=300)


def resume(folder: Path, *overrides: str, allow_changes: bool = False) -> Path:
    return train(resumed_config(folder, None, list(overrides)), resume=True, allow_changes=allow_changes)


def outcome(folder: Path) -> tuple[dict[str, bytes], list[dict]]:
    """The weights files, and the metrics without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    clock = ("images_per_second", "data_wait")
    metrics = [{key: value for key, value in line.items() if key not in clock} for line in lines]
    return {path.name: path.read_bytes() for path in (folder / "checkpoints").glob("*.safetensors")}, metrics


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").glob("iteration_*.pt"))


def forget_after(folder: Path, checkpoint: str) -> None:
    for name in checkpoints(folder):
        if name > checkpoint:
            (folder / "checkpoints" / name).unlink()


def test_killed_and_resumed_run_is_bit_identical(noisy_config, tmp_path):
    whole = train(load_config(noisy_config, ["name=whole"]))
    passes = 2 * 12  # two parts a step
    first, second = sorted(random.sample(range(6, passes), 2))
    killed = kpac("train", noisy_config, DIE_AT=first)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    folder = tmp_path / "runs" / "noisy"
    done = int(checkpoints(folder)[-1][-10:-3])
    killed = kpac("train", "--resume", folder, DIE_AT=max(1, second - 2 * done))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    resume(folder)
    assert outcome(folder) == outcome(whole), f"killed in passes {first} and {second}"
    assert len(json.loads((folder / "run.json").read_text())["resumed"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_run_killed_at_random_moments_is_bit_identical(config_file, tmp_path, workers):
    settings = ["train.iterations=300", "train.checkpoint.every=7", "validation.every=50", f"data.workers={workers}"]
    settings += ["train.ema_decay=0.99", "train.log_every=20"]
    assert kpac("train", config_file, "name=whole", *settings).returncode == 0
    folder, arguments, kills = tmp_path / "runs" / "small", [config_file, *settings], 0
    while kills < 12:
        with subprocess.Popen(
            [sys.executable, "-c", KPAC, "train", *map(str, arguments)], stderr=subprocess.PIPE, text=True, cwd=ROOT
        ) as run:
            while run.poll() is None and not checkpoints(folder):
                time.sleep(0.05)
            time.sleep(random.uniform(0, 4) if kills else 0)
            run.kill()
            if run.wait() == 0:
                break
            assert "Traceback" not in run.stderr.read()
        kills, arguments = kills + 1, ["--resume", folder]
    else:
        assert kpac("train", "--resume", folder).returncode == 0
    assert kills > 1
    assert outcome(folder) == outcome(tmp_path / "runs" / "whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_signal_saves_and_says_how_to_resume(config_file, tmp_path, number):
    folder = tmp_path / "runs" / "small"
    command = [sys.executable, "-m", "kpac", "train", str(config_file), "train.iterations=100000", "data.workers=2"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True) as run:
        while run.poll() is None and not ((folder / "metrics.jsonl").exists() and checkpoints(folder)):
            time.sleep(0.05)
        os.killpg(run.pid, number)  # as a terminal and a scheduler do: the data workers get it too
        errors = run.communicate(timeout=120)[1]
    assert run.returncode == 128 + number
    assert "Traceback" not in errors
    line = errors.splitlines()[-1]
    assert line.endswith(f"the run is saved; continue with: kpac train --resume {folder}")
    done = int(line.split("after iteration ")[1].split(";")[0])
    assert checkpoints(folder)[-1] == f"iteration_{done:07d}.pt"
    resume(folder, f"train.iterations={done + 2}", allow_changes=True)
    assert checkpoints(folder)[-1] == f"iteration_{done + 2:07d}.pt"


def test_closed_terminal_saves(config_file, tmp_path):
    folder = tmp_path / "runs" / "small"
    child, terminal = pty.fork()  # the child leads a session whose terminal is ours to close
    if not child:
        arguments = ["-m", "kpac", "train", str(config_file), "train.iterations=100000", "data.workers=2"]
        os.execv(sys.executable, [sys.executable, *arguments])
    while not ((folder / "metrics.jsonl").exists() and checkpoints(folder)):
        os.read(terminal, 1 << 16)
        time.sleep(0.05)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 128 + signal.SIGHUP
    newest = read_checkpoint(folder / "checkpoints" / checkpoints(folder)[-1])["iteration"]
    logged = [json.loads(line)["iteration"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert newest >= logged[-1]


def test_nohup_is_respected(monkeypatch):
    earlier = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as request:
            signal.raise_signal(signal.SIGHUP)
            assert request.number == 0
            signal.raise_signal(signal.SIGUSR1)
            assert request.number == signal.SIGUSR1
    finally:
        signal.signal(signal.SIGHUP, earlier)


@pytest.fixture
def finished(config_file) -> Path:
    return train(load_config(config_file, ["train.iterations=4", "train.checkpoint.every=2"]))


def unchanged(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize("change", ["train.losses={mse: 1.0}", "validation.protocol=dpdd-16bit"])
def test_best_starts_anew_where_scores_do_not_compare(config_file, caplog, change):
    folder = train(load_config(config_file, ["train.iterations=2", "validation.every=2"]))
    newest = folder / "checkpoints" / "iteration_0000002.pt"
    state = read_checkpoint(newest)
    Checkpoints(newest.parent, keep=3).save({**state, "best": {"psnr": 99.0, "iteration": 2}})
    resume(folder, "train.iterations=4", allow_changes=True)
    assert read_weights_header(folder / "checkpoints" / "best.safetensors")["iteration"] == 2
    resume(folder, "train.iterations=6", change, allow_changes=True)
    assert read_weights_header(folder / "checkpoints" / "best.safetensors")["iteration"] == 6
    key = change.partition("=")[0].removesuffix("losses") + "losses" * ("losses" in change)
    assert f"best.safetensors starts over: scores are not comparable after a change ({key}" in caplog.text


def test_resume_that_cannot_go_on_is_one_line_and_changes_nothing(capsys, finished, tmp_path):
    before = unchanged(finished)
    for arguments, words in (
        ([finished], "the run is finished, 4 of 4 iterations"),
        ([finished, "train.iterations=3"], "train.iterations: 3 is below the 4 that"),
        ([finished, "train.iterations=9", "data.crop=16"], "data.crop 32 -> 16, train.iterations 4 -> 9; add --allow-"),
        ([finished, "train.iterations=9", "model.width=5", "--allow-changes"], "a run keeps its network (model.width"),
        ([tmp_path / "gone"], "gone: no run to continue; expected a folder with a config.yaml"),
        ([finished, "--overwrite"], "give only one"),
    ):
        capsys.readouterr()
        assert main(["train", "--resume", *map(str, arguments)]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert words in lines[0]
    assert unchanged(finished) == before


def test_run_in_use_is_left_alone(config_file, tmp_path):
    folder = tmp_path / "runs" / "small"
    command = [sys.executable, "-m", "kpac", "train", str(config_file), "train.iterations=100000"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as run:
        while run.poll() is None and not checkpoints(folder):
            time.sleep(0.05)
        with pytest.raises(UserError, match=f"in use by process {run.pid} on .*; wait for it or end it"):
            resume(folder)
        with pytest.raises(UserError, match="in use by"):
            train(load_config(config_file), overwrite=True)
        run.kill()
        run.wait()
    assert (folder / "config.yaml").is_file()


def test_lock_of_a_killed_process_is_free_though_its_data_workers_live_on(config_file, tmp_path):
    folder = tmp_path / "runs" / "small"
    settings = ["train.iterations=100000", "data.workers=2"]
    command = [sys.executable, "-m", "kpac", "train", str(config_file), *settings]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=ROOT) as run:
        while run.poll() is None and not checkpoints(folder):
            time.sleep(0.05)
        run.kill()
    done = int(checkpoints(folder)[-1][-10:-3])
    resume(folder, f"train.iterations={done + 1}", "data.workers=0", allow_changes=True)


def test_changed_settings_hold_after_a_resumption_that_allows_them(finished):
    overrides = ["train.iterations=6", "train.optimizer.learning_rate=1e-5", "train.schedule.name=constant"]
    overrides += ["train.schedule.warmup=0", "train.log_every=1", "train.ema_decay=0.5"]
    resume(finished, *overrides, allow_changes=True)
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "train" and line["iteration"] > 4]
    assert [line["learning_rate"] for line in steps] == [1e-5, 1e-5]
    assert load_config(finished / "config.yaml").train.iterations == 6


def test_other_data_than_the_runs_are_refused(config_file, data_root, tmp_path):
    root = shutil.copytree(data_root, tmp_path / "data")
    overrides = [f"data.root={root}", "train.iterations=4", "train.checkpoint.every=2"]
    folder = train(load_config(config_file, overrides))
    (folder / "checkpoints" / checkpoints(folder)[-1]).unlink()
    for images in ("source", "target"):
        min((root / "train_c" / images).iterdir()).unlink()
    with pytest.raises(UserError, match=r"the data differ from those of the run: train.scenes 8 -> 7, ") as error:
        resume(folder)
    assert "; add --allow-changes" in explain(error.value)
    resume(folder, allow_changes=True)
    assert checkpoints(folder)[-1] == "iteration_0000004.pt"


def test_run_without_a_checkpoint_says_to_start_again(finished):
    for name in checkpoints(finished):
        (finished / "checkpoints" / name).unlink()
    with pytest.raises(UserError, match=r"holds no training checkpoint .*ended before its first one") as error:
        resume(finished)
    assert explain(error.value).endswith("; start it again with --overwrite")


def test_moved_run_continues_where_it_lies_now(finished, tmp_path):
    moved = finished.rename(tmp_path / "elsewhere")
    assert resume(moved, "train.iterations=5", allow_changes=True) == moved
    assert checkpoints(moved)[-1] == "iteration_0000005.pt"


def test_run_resumed_in_another_memory_layout_ends_close_to_the_whole_one(config_file):
    folder = train(load_config(config_file, ["train.iterations=8", "train.checkpoint.every=4"]))
    file = folder / "checkpoints" / "last.safetensors"
    whole = load_model(file).state_dict()
    forget_after(folder, "iteration_0000004.pt")
    resume(folder, "train.compute.channels_last=true", allow_changes=True)
    resumed = load_model(file).state_dict()
    # Scrambled moments move weights by about a step, 1e-4 and more.
    assert max((whole[name] - resumed[name]).abs().max().item() for name in whole) < 1e-5


@pytest.mark.skipif(bool(missing()), reason="needs Numba")
@pytest.mark.parametrize(("before", "after"), [(FastNet, KPACNet), (KPACNet, FastNet)])
def test_resuming_with_and_without_acceleration_is_the_same_network(config_file, monkeypatch, before, after):
    def accelerate(network: type) -> str:
        return f"train.compute.accelerate={str(network is FastNet).lower()}"

    def losses(folder: Path) -> list[float]:
        return [line["loss"] for line in outcome(folder)[1] if line["kind"] == "train"]

    def load_and_keep(self: Trainer, state: dict) -> None:
        load(self, state)
        loaded.append((type(self.model), {name: value.clone() for name, value in self.model.state_dict().items()}))

    settings = ["model.width=16", "train.iterations=8", "train.checkpoint.every=4", "train.log_every=1"]
    folder = train(load_config(config_file, [*settings, accelerate(before)]))
    whole, loaded, load = losses(folder), [], Trainer.load_state_dict
    forget_after(folder, "iteration_0000004.pt")
    saved = read_checkpoint(folder / "checkpoints" / "iteration_0000004.pt")["model"]
    monkeypatch.setattr(Trainer, "load_state_dict", load_and_keep)
    resume(folder, accelerate(after), allow_changes=True)
    ((network, weights),) = loaded
    assert network is after
    assert list(weights) == list(saved)
    assert all(torch.equal(value, saved[name]) for name, value in weights.items())
    assert len(losses(folder)) == 8
    assert losses(folder) == pytest.approx(whole, rel=0, abs=1e-5)
