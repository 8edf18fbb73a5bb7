"""Compares speed and memory of the accelerated network with plain PyTorch, eager and in its default memory layout.

    python benchmarks/network.py [--threads 2] [--rounds 3] [--only CASE ...]
    python benchmarks/network.py --tricks      # gain of each trick: ours with and without it
    python benchmarks/network.py --gpu         # only the table of benchmarks/gpu.py

Prints a Markdown table of ratios. Every measurement runs in its own process, which reports its peak memory. The two
sides alternate, so that other load on the machine affects both. The matrix product shows the machine's speed at the
time. Takes about ten minutes on two CPU cores.
"""

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import gpu
from kpac import create_model
from kpac.cpu import accelerate, banded, layers, parallel, shared_kernel, winograd
from kpac.text import markdown_table

HEADER = ["case", "plain [s]", "ours [s]", "times faster", "plain [MB]", "ours [MB]", "share", "product [GFLOP/s]"]
NETWORK = "kpac_2level"
FRAME = (1120, 1680)
CASES = ("forward-float32", "forward-bfloat16", "train-8x96", "train-8x256")
GEMM = 2048  # side of the matrices
WARM_UP = 2  # number of calls before timing
TRICKS = {  # trick that can be switched off -> cases that it affects
    "shared products": ("forward-float32", "train-8x256"),
    "transformed convolutions": ("forward-float32", "train-8x256"),
    "bands": ("forward-float32",),
    "few outputs": ("train-8x256",),
    "kept memory": ("forward-float32", "train-8x256"),
    "sleeping threads": ("train-8x96",),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--tricks", action="store_true")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.worker:
        print(json.dumps(worker(*options.worker)))
        return
    if options.gpu:
        if not torch.cuda.is_available():
            parser.error("--gpu: PyTorch finds no CUDA device")
        print(gpu.table(gpu.measure(torch.device("cuda"))))
        return
    if options.tricks:
        pairs = [(f"without {trick}", case) for trick, cases in TRICKS.items() for case in cases]
        rows = [[side, *compare(case, options.threads, options.rounds, side)] for side, case in pairs]
        print(markdown_table(["", *(title.replace("plain", "without") for title in HEADER)], rows))
        return
    rows = []
    for case in options.only:
        if case == "forward-bfloat16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            print(f"{case}: left out, this processor has no bfloat16 instructions", file=sys.stderr)
            continue
        rows.append(compare(case, options.threads, options.rounds))
    print(f"{platform.processor() or platform.machine()}, {options.threads} threads, torch {torch.__version__}\n")
    print(markdown_table(HEADER, rows))


def compare(case: str, threads: int, rounds: int, other: str = "plain") -> list[str]:
    """Table row of a case: medians of both sides, whose measurements alternate."""
    found = {other: [], "ours": []}
    for _ in range(rounds):
        for side, results in found.items():
            command = [sys.executable, __file__, "--threads", str(threads), "--worker", case, side]
            results.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    seconds = {
        side: median(second for result in results for second in result["seconds"]) for side, results in found.items()
    }
    peaks = {side: median(result["peak"] for result in results) for side, results in found.items()}
    products = [result["product"] for results in found.values() for result in results]
    return [
        case,
        f"{seconds[other]:.2f}",
        f"{seconds['ours']:.2f}",
        f"{seconds[other] / seconds['ours']:.2f}",
        f"{peaks[other]:,.0f}",
        f"{peaks['ours']:,.0f}",
        f"{peaks['ours'] / peaks[other]:.0%}",
        f"{min(products):.0f} to {max(products):.0f}",
    ]


def worker(case: str, side: str) -> dict:
    """Measures one side of a case: seconds of each call, peak memory of the process in MB, matrix-product speed."""
    torch.manual_seed(0)
    kind, _, detail = case.partition("-")
    model = create_model(NETWORK)
    if side == "without shared products":
        shared_kernel.suits = lambda *_: False
    if side == "without transformed convolutions":
        winograd.suits = lambda *_: False
    if side == "without few outputs":
        del layers.FastResidualConv.forward
    if side == "without bands":
        banded.BAND_BYTES = banded.CHAIN_BYTES = 1 << 40
    if side == "without sleeping threads":
        parallel._let_others_sleep = lambda: None
    if side != "plain":  # with kept memory also for forward passes, as in evaluations
        model = accelerate(model, training=side != "without kept memory")
    if kind == "train":
        batch, crop = map(int, detail.split("x"))
        call = training_step(model, batch, crop, side)
    else:
        call = forward(model, detail, side)
    seconds = [timed(call) for _ in range(WARM_UP)]
    while len(seconds) < WARM_UP + 3 or sum(seconds) < 12:
        seconds.append(timed(call))
    seconds = seconds[WARM_UP:]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "peak": peak, "product": product_speed()}


def forward(model: torch.nn.Module, precision: str, side: str) -> Callable[[], object]:
    model.eval()
    views = torch.rand(1, 3, *FRAME)
    if side != "plain":
        views = views.contiguous(memory_format=torch.channels_last)  # as Restorer does

    def call() -> object:
        # Plain PyTorch always computes in float32.
        lower = precision != "float32" and side != "plain"
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=lower):
            return model(views)

    return call


def training_step(model: torch.nn.Module, batch: int, crop: int, side: str) -> Callable[[], object]:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, fused=side != "plain")  # as in training
    views, target = torch.rand(2, batch, 3, crop, crop)

    def call() -> object:
        (model(views) - target).abs().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return call


def product_speed() -> float:
    """GFLOP/s of a matrix product, the best of a few runs."""
    a = torch.rand(GEMM, GEMM)
    return 2e-9 * GEMM**3 / min(timed(lambda: a @ a) for _ in range(5))


def timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
