"""The steps of scripts/check_gpu.py; each runs in its own process.

    python scripts/gpu_steps.py STEP --device cuda --output FOLDER [--rehearse]

The last line that a step prints is JSON: {"ok": ..., "figure": "..."}. With --rehearse, a step uses tiny sizes on a
CPU, to test its code, and leaves out everything that needs CUDA.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
EXACT = ["train.compute.precision=float32", "train.compute.tf32=false"]


@dataclass(frozen=True)
class Check:
    """Arguments of a step.

    Args:
        device: "cuda" or "cpu".
        output: folder for results.
        work: temporary folder.
        rehearse: whether to use tiny sizes.
    """

    device: str
    output: Path
    work: Path
    rehearse: bool


class Failed(Exception):
    """Raised when a result differs from the expected one."""


def environment(check: Check) -> str:
    """Imports all packages; reports versions and device."""
    import torch

    import kpac.cli
    from kpac.environment import choose_device, describe, device_name

    kpac.cli.make_parser()
    facts = {**describe(), "device": device_name(choose_device()), "cuda": torch.version.cuda}
    (check.output / "environment.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return f"{facts['device']}, PyTorch {torch.__version__}, Python {facts['python']}"


def tests(check: Check) -> str:
    """Runs pytest -m gpu."""
    more = ["--collect-only"] if check.rehearse else ["--maxfail=3", "--durations=5"]
    command = [sys.executable, "-m", "pytest", "-v", "-m", "gpu", "-p", "no:cacheprovider", *more, "tests"]
    log = check.output / "pytest.txt"  # written as it comes, so that a step out of time still names its tests
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
    said = last_line(log.read_text(encoding="utf-8"))
    expect(done.returncode == 0, f"pytest: {said}")
    return said.strip("= ")


def resume(check: Check) -> str:
    """Checks that a run can be resumed on another device, in both directions."""
    config = small_config(check)
    apart = []
    for first, second in (("cpu", check.device), (check.device, "cpu")):
        words = [*EXACT, "data.workers=0", f"name={first}-{second}-{len(apart)}"]
        whole = trained(config, [*words, f"device={first}", "train.iterations=12"])
        half = trained(config, [*words, f"device={first}", "train.iterations=6", f"name=half-{len(apart)}"])
        run_train(["--resume", str(half), f"device={second}", "train.iterations=12", "--allow-changes"])
        apart.append(difference(whole, half))
    expect(max(apart) < 1e-3, f"weights {max(apart):.1e} apart, expected below 1e-3")
    return f"weights {apart[0]:.1e} and {apart[1]:.1e} apart"


def deterministic(check: Check) -> str:
    """Checks that 40 steps, and 20 steps resumed for another 20, give bit-identical weights."""
    config, steps = small_config(check), 4 if check.rehearse else 40
    for precision in ("float32", "bfloat16"):
        words = [f"device={check.device}", f"train.compute.precision={precision}", "train.compute.deterministic=true"]
        whole = trained(config, [*words, f"train.iterations={steps}", f"name=whole-{precision}"])
        half = trained(config, [*words, f"train.iterations={steps // 2}", f"name=half-{precision}"])
        run_train(["--resume", str(half), f"train.iterations={steps}", "--allow-changes"])
        same = weights_of(whole).read_bytes() == weights_of(half).read_bytes()
        expect(same, f"{precision}: other bits after a resumption, {difference(whole, half):.1e} apart")
    return f"the same bits after {steps} steps, float32 and bfloat16"


def launched(check: Check) -> str:
    """Trains under torchrun with one rank, stops by SIGTERM, and resumes to the end.

    Uses bfloat16, compilation, gradient accumulation, two stages and EMA.
    """
    config = small_config(check)
    words = [f"device={check.device}", "name=launched", "train.batch_size=4", "train.accumulate=2"]
    words += ["train.ema_decay=0.9", "train.progressive=[{until: 8, crop: 32, batch_size: 4}]", "train.log_every=5"]
    words += ["train.checkpoint.every=5"]
    if not check.rehearse:
        words += ["train.compute.precision=bfloat16", "train.compute.compile=true"]
    folder = check.work / "runs" / "launched"
    with torchrun(1, "scripts/train.py", config, *words, "train.iterations=100000") as run:
        while run.poll() is None and not list(folder.glob("checkpoints/iteration_*.pt")):
            time.sleep(0.05)
        run.send_signal(signal.SIGTERM)
        errors = run.communicate(timeout=60)[1]
    stopped = re.search(r"stopped by SIGTERM after iteration (\d+); the run is saved", errors)
    expect(stopped is not None, f"no line of a saved run: {last_line(errors)}")
    end = int(stopped[1]) + 10
    with torchrun(1, "scripts/train.py", "--resume", folder, f"train.iterations={end}", "--allow-changes") as run:
        errors = run.communicate(timeout=120)[1]
    expect(run.returncode == 0, f"resumed run: {last_line(errors)}")
    expect((folder / "checkpoints" / f"iteration_{end:07d}.pt").is_file(), "no checkpoint of the last iteration")
    return f"stopped and saved at {stopped[1]}, resumed and finished at {end}"


def shared(check: Check) -> str:
    """Two ranks on one device: checks that they give the weights of one process, and that both end if one fails."""
    config = small_config(check)
    words = [*EXACT, f"device={check.device}", "train.iterations=8", "train.batch_size=4"]
    one = trained(config, [*words, "name=one"])
    with torchrun(2, "scripts/train.py", config, *words, "name=two") as run:
        errors = run.communicate(timeout=120)[1]
    expect(run.returncode == 0, f"two ranks: {last_line(errors)}")
    apart = difference(one, one.with_name("two"))
    expect(apart < 1e-3, f"weights {apart:.1e} apart, expected below 1e-3")
    with torchrun(2, "tests/training/ranks.py", "fail", config) as run:
        errors = run.communicate(timeout=120)[1]
    failed = re.search(r"rank 1 fails at ([\d.]+)", errors)
    expect(run.returncode != 0 and failed is not None, f"the failing rank: {last_line(errors)}")
    took = time.time() - float(failed[1])
    expect(took < 60, f"both ranks ended after {took:.0f} s, expected within 60")
    return f"weights {apart:.1e} apart; a rank failed, and both ended after {took:.0f} s"


def quickstart(check: Check) -> str:
    """Trains and evaluates the quickstart on the GPU and on the CPU, and compares the scores."""
    root, steps = check.work / "quickstart", 2 if check.rehearse else 300
    if check.rehearse:
        root = small_data(check)
    else:
        kpac("data", "synthesize", "--photos", "skimage", "--output", root, "--workers", os.cpu_count() or 2)
    scores: dict[tuple[str, str], float] = {}
    for trained_on in dict.fromkeys((check.device, "cpu")):
        words = [f"device={trained_on}", f"name={trained_on}", f"runs={check.work / 'runs'}", f"data.root={root}"]
        words += [f"train.iterations={steps}", f"validation.every={steps}", "data.crop=32" if check.rehearse else ""]
        kpac("train", ROOT / "configs" / "quickstart.yaml", *filter(None, words))
        for device in dict.fromkeys((check.device, "cpu")):
            folder = check.work / f"{trained_on}-{device}"
            words = ["--data", root, "--split", "test", "--device", device, "--output", folder]
            kpac("evaluate", check.work / "runs" / trained_on, *words)
            scores[trained_on, device] = json.loads((folder / "results.json").read_text())["mean"]["psnr"]
    card, cpu = scores[check.device, check.device], scores[check.device, "cpu"]
    expect(abs(card - cpu) < 1e-4, f"evaluated on the card {card:.5f} dB, on the CPU {cpu:.5f} dB")
    apart = abs(cpu - scores["cpu", "cpu"])
    expect(apart < 0.1, f"trained on the card {cpu:.2f} dB, on the CPU {scores['cpu', 'cpu']:.2f} dB")
    return f"{card:.3f} dB; evaluation {abs(card - cpu):.1e} dB apart, training {apart:.3f} dB"


def restoring(check: Check) -> str:
    """Checks restoring: whole images against tiles, precisions, and the memory estimate."""
    import numpy as np
    import torch

    import kpac
    from tests.models.golden import randomize

    options = {"width": 4, "blocks": 1} if check.rehearse else {}
    model = randomize(kpac.create_model("kpac_2level", **options))  # a new network hardly changes its input
    height, width, tile = (64, 96, 32) if check.rehearse else (1120, 1680, 512)
    image = np.random.default_rng(0).random((height, width, 3), np.float32)
    outputs, words = {}, []
    for name, precision, side in (
        ("whole", "float32", None),
        ("tiles", "float32", tile),
        ("bfloat16", "bfloat16", None),
        ("float16", "float16", None),
    ):
        restorer = kpac.Restorer(model, tile=side, precision=precision, device=check.device)
        if check.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        outputs[name] = restorer(image)
        if check.device == "cuda":
            peak, estimate = torch.cuda.max_memory_reserved(), restorer.estimate_bytes(height, width, side)
            expect(peak <= estimate, f"{name}: peak of {peak / 1e9:.2f} GB, estimated {estimate / 1e9:.2f} GB")
            words.append(f"{name} {peak / 1e9:.2f} of {estimate / 1e9:.2f} GB")
    apart = {name: float(np.abs(output - outputs["whole"]).max()) for name, output in outputs.items()}
    expect(apart["tiles"] < 1e-5, f"tiles differ from the whole by {apart['tiles']:.1e}, expected below 1e-5")
    lower = f"bfloat16 {apart['bfloat16']:.1e}, float16 {apart['float16']:.1e} from float32"
    return "; ".join([f"tiles {apart['tiles']:.1e} from the whole, {lower}", *words])


def speed(check: Check) -> str:
    """Measures training step, frame and loader against the goals and the roofline, and writes a profile."""
    import torch

    from benchmarks import gpu

    figures = gpu.measure(torch.device(check.device), check.rehearse, check.output / "profile")
    (check.output / "speed.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    (check.output / "speed.md").write_text(gpu.table(figures) + "\n", encoding="utf-8")
    best = gpu.best_step(figures)
    words = f"step eager {figures['step eager']:.2f} ms, best {best:.2f} ms of {figures['roofline step']:.2f}; "
    words += f"frame {figures['frame']:.2f} ms; loader {figures['loader']:.0f}/s; waits {figures['data_wait']:.1%}"
    missed = [
        name
        for name, reached in {
            "step eager": figures["step eager"] <= gpu.GOALS["step eager"],
            "step best": best <= gpu.GOALS["step best"],
            "frame": figures["frame"] <= gpu.GOALS["frame"],
            "loader": figures["loader"] >= gpu.BATCHES,
            "waiting": figures["data_wait"] < 0.05,
        }.items()
        if not reached
    ]
    expect(check.rehearse or not missed, f"goals missed: {', '.join(missed)}; {words}")
    return words


STEPS: dict[str, Callable[[Check], str]] = {
    step.__name__: step
    for step in (environment, tests, resume, deterministic, launched, shared, quickstart, restoring, speed)
}


def expect(reached: bool, otherwise: str) -> None:
    if not reached:
        raise Failed(otherwise)


def small_data(check: Check) -> Path:
    """Makes a tiny data set, within seconds."""
    from kpac.data.synthesis.dataset import synthesize
    from kpac.data.synthesis.photos import folder_photos
    from kpac.data.synthesis.settings import SynthesisSettings
    from tests.conftest import write_photos

    root = check.work / "data"
    if not root.exists():
        photos = folder_photos(write_photos(check.work / "photos", 6), None, val=0.1, test=0.1, seed=0)
        synthesize(photos, root, SynthesisSettings(f_number=1.4, views="center"), workers=1)
    return root


def small_config(check: Check) -> Path:
    """Writes a configuration that trains within seconds."""
    path = check.work / "small.yaml"
    model = "{width: 4, blocks: 1}" if check.rehearse else "{width: 16, blocks: 1}"
    train = "iterations: 12, batch_size: 2, schedule: {name: constant, warmup: 0}, optimizer: {learning_rate: 1e-3}"
    path.write_text(
        f"extends: {ROOT / 'configs' / 'quickstart.yaml'}\nname: small\nruns: {check.work / 'runs'}\nmodel: {model}\n"
        f"data: {{root: {small_data(check)}, crop: 32, workers: 1}}\ntrain: {{{train}}}\n"
        "validation: {every: 100000}\n"
    )
    return path


def trained(config: Path, words: list[str]) -> Path:
    """Trains in this process, which saves the start of another one; returns the run's folder."""
    from kpac.config import load_config
    from kpac.training.trainer import train

    return train(load_config(config, words))


def run_train(words: list[str]) -> None:
    from kpac.cli import main

    expect(main(["train", *words]) == 0, f"kpac train {' '.join(words)} failed")


def weights_of(run: Path) -> Path:
    return run / "checkpoints" / "last.safetensors"


def difference(one: Path, other: Path) -> float:
    """Largest absolute difference between the weights of two runs."""
    from safetensors.torch import load_file

    first, second = load_file(weights_of(one)), load_file(weights_of(other))
    return max((first[name] - second[name]).abs().max().item() for name in first)


def torchrun(ranks: int, script: str, *words: object) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks), script]
    environment = {**os.environ, "KPAC_SHARE_GPU": str(int(ranks > 1)), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [*command, *map(str, words)], cwd=ROOT, env=environment, stderr=subprocess.PIPE, stdout=sys.stderr, text=True
    )


def kpac(*words: object) -> None:
    """Runs a `kpac` command in a subprocess."""
    command = [sys.executable, "-m", "kpac", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    expect(done.returncode == 0, f"kpac {words[0]}: {last_line(done.stderr)}")


def last_line(text: str) -> str:
    own = [line for line in text.splitlines() if line.startswith("kpac: ")]
    return (own or text.strip().splitlines() or ["no output"])[-1]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("step", choices=STEPS)
    parser.add_argument("--device", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kpac-check-") as work:
        check = Check(options.device, options.output, Path(work), options.rehearse)
        try:
            result: dict[str, Any] = {"ok": True, "figure": STEPS[options.step](check)}
        except Exception as error:
            traceback.print_exc()
            result = {"ok": False, "figure": str(error) or type(error).__name__}
    print(json.dumps(result), flush=True)
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
