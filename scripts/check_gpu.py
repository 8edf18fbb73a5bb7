"""Runs all checks that need a GPU, in ten minutes; see docs/distributed.md.

    python scripts/check_gpu.py [--output FOLDER] [--only STEP ...]
    python scripts/check_gpu.py --rehearse     # runs every step on the CPU with tiny sizes, to test the steps

Prints PASS, FAIL or SKIP and a result for each step, and writes checks.json and checks.md to the folder. Without a
CUDA device, steps that need one are skipped. Needs a checkout and a Python with the packages;
scripts/check_gpu.sh installs missing ones.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TIMEOUTS = {  # seconds; about 1.5 times the expected time of a step
    "environment": 40,
    "tests": 135,
    "resume": 60,
    "deterministic": 45,
    "launched": 120,
    "shared": 60,
    "quickstart": 100,
    "restoring": 45,
    "speed": 240,
}
LIMIT = 600  # seconds for all steps together
ANYWHERE = ("environment",)  # steps that need no GPU


@dataclass
class Outcome:
    step: str
    result: str
    figure: str
    seconds: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(os.environ.get("OUT", "results")) / "gpu-check")
    parser.add_argument("--only", nargs="+", choices=TIMEOUTS, default=list(TIMEOUTS), metavar="STEP")
    parser.add_argument("--rehearse", action="store_true")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    has_gpu = not options.rehearse and cuda_is_there()
    outcomes: list[Outcome] = []
    start = time.monotonic()
    for step in options.only:
        left = LIMIT - (time.monotonic() - start)
        if not (has_gpu or options.rehearse or step in ANYWHERE):
            outcome = Outcome(step, "SKIP", "needs a CUDA device", 0.0)
        elif left < 5 and not options.rehearse:
            outcome = Outcome(step, "SKIP", f"the {LIMIT} s of all steps are over", 0.0)
        else:
            limit = 600 if options.rehearse else min(TIMEOUTS[step], left)
            outcome = run(step, options.output, "cuda" if has_gpu else "cpu", options.rehearse, limit)
        outcomes.append(outcome)
        print(f"{outcome.result}  {outcome.step:<13} {outcome.seconds:6.1f} s  {outcome.figure}", flush=True)
        write(outcomes, options.output)
    print(f"results: {options.output}/checks.md, checks.json")
    return int(any(outcome.result == "FAIL" for outcome in outcomes))


def run(step: str, output: Path, device: str, rehearse: bool, limit: float) -> Outcome:
    """Runs one step in its own process group, which is killed when the step's time is up."""
    command = [sys.executable, str(ROOT / "scripts" / "gpu_steps.py"), step, "--device", device]
    command += ["--output", str(output.resolve()), *(["--rehearse"] if rehearse else [])]
    start = time.monotonic()
    log = output / f"{step}.log"
    with (
        log.open("w", encoding="utf-8") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True) as process,
    ):
        try:
            printed = process.communicate(timeout=limit)[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return Outcome(step, "FAIL", f"not done after {limit:.0f} s; see {log}", time.monotonic() - start)
    took = time.monotonic() - start
    try:
        result = json.loads(printed.strip().splitlines()[-1])
        return Outcome(step, "PASS" if result["ok"] else "FAIL", result["figure"], took)
    except (IndexError, ValueError, KeyError, TypeError):
        return Outcome(step, "FAIL", f"ended with status {process.returncode}; see {log}", took)


def write(outcomes: list[Outcome], output: Path) -> None:
    entries = [asdict(outcome) for outcome in outcomes]
    (output / "checks.json").write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    rows = [f"| {one.step} | {one.result} | {one.figure} | {one.seconds:.1f} |" for one in outcomes]
    lines = ["| step | result | found | seconds |", "|---|---|---|---:|", *rows]
    (output / "checks.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def cuda_is_there() -> bool:
    code = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
