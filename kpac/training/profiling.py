"""A PyTorch profiler trace of a few early steps."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from kpac.files import atomic_write


@contextmanager
def profiler(folder: Path | None) -> Iterator[Callable[[], None]]:
    """Records steps 6 to 10 to `trace.json`. Yields a function to call after each step.

    Args:
        folder: folder for the trace, created when needed; None for no trace.
    """
    if folder is None:
        yield lambda: None
        return

    def write(trace: profile) -> None:
        with atomic_write(folder / "trace.json") as partial:
            trace.export_chrome_trace(str(partial))

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    steps = schedule(wait=3, warmup=2, active=5, repeat=1)
    with profile(activities=activities, schedule=steps, on_trace_ready=write, profile_memory=True) as running:
        yield running.step
