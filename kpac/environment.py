"""The device, the versions of packages and the revision of the code."""

import logging
import os
import platform
import re
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from kpac.errors import OutOfMemory, UserError
from kpac.memory import is_exhausted

log = logging.getLogger(__name__)

DEVICE = r"auto|cpu|mps|cuda(:\d+)?"
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
OPTIONAL = ("numba", "onnxruntime", "huggingface-hub", "lpips", "pyiqa", "wandb", "submitit")
PACKAGES = ("kpac", "torch", "torchvision", "numpy", "opencv-python-headless", "scikit-image", "safetensors")


def choose_device(name: str = "auto") -> torch.device:
    """Returns the device for a name: "cpu", "cuda", "cuda:1", "mps", or "auto" for a CUDA device if there is one.

    Warns if "auto" falls back to the CPU although the machine has an NVIDIA driver.

    Raises:
        UserError: no such name, or PyTorch cannot use the device.
    """
    if not re.fullmatch(DEVICE, name):
        raise UserError(f"device: expected auto, cpu, cuda, cuda:N or mps, found '{name}'")
    if name == "mps":
        if not torch.backends.mps.is_available():
            raise UserError("device: 'mps' was asked for, but PyTorch finds no Apple GPU; use 'auto' or 'cpu'")
        return torch.device(name)
    usable = name != "cpu" and torch.cuda.is_available()
    if name.startswith("cuda") and not usable:
        why = f" ({_cuda_problem()})" if NVIDIA_DRIVER.exists() else ""
        raise UserError(f"device: '{name}' was asked for, but PyTorch finds no CUDA device{why}; use 'auto' or 'cpu'")
    if name.startswith("cuda:") and int(name[5:]) >= torch.cuda.device_count():
        raise UserError(
            f"device: '{name}' was asked for; PyTorch finds {torch.cuda.device_count()} CUDA devices, numbered from 0"
        )
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if name == "auto" and not usable and not hidden and NVIDIA_DRIVER.exists():
        log.warning(
            "this machine has an NVIDIA driver, but PyTorch %s cannot use it (%s); computing on the CPU. "
            "Install a PyTorch for this driver (docs/distributed.md), or choose device 'cpu'",
            torch.__version__,
            _cuda_problem(),
        )
    if not usable:
        return torch.device("cpu")
    if name.startswith("cuda:"):
        torch.cuda.set_device(int(name[5:]))
    return torch.device(name if name.startswith("cuda") else "cuda")


def check_usable(device: torch.device) -> None:
    """Initializes CUDA on a device, to check that it can be used.

    Raises:
        UserError: the device cannot be used, for instance because other programs hold all of its memory.
    """
    problem = _cuda_problem(device) if device.type == "cuda" else None
    if problem:
        raise UserError(f"device {device}: cannot be used ({problem}); nvidia-smi lists the programs that use it")


@contextmanager
def out_of_memory_explained(device: torch.device) -> Iterator[None]:
    """Context that turns an out-of-memory error into a UserError, with the use of the memory and advice."""
    try:
        yield
    except (RuntimeError, MemoryError, OutOfMemory) as error:
        if not isinstance(error, OutOfMemory) and not is_exhausted(error):
            raise
        use = ""
        if device.type == "cuda":
            free, total = torch.cuda.mem_get_info(device)
            ours = torch.cuda.memory_reserved(device)
            gib = [amount / 2**30 for amount in (total, ours, total - free - ours)]
            use = f" (of {gib[0]:.1f} GiB, this run holds {gib[1]:.1f} and other programs {gib[2]:.1f})"
        if isinstance(error, OutOfMemory):  # in validation, on whole images: smaller crops would not help
            raise UserError(f"validation: {error}{use}; cut the images of the val split into parts") from None
        raise UserError(
            f"{device_name(device)}: out of memory{use}; raise train.accumulate, or lower train.batch_size or data.crop"
        ) from None


def _cuda_problem(device: torch.device | None = None) -> str | None:
    """PyTorch's error message if CUDA cannot be initialized; None if it can."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.zeros(1, device=device or "cuda")
    except (RuntimeError, AssertionError) as error:
        return str(error).strip().splitlines()[0].split(". ")[0]
    return None


def usable_cores() -> int:
    """Number of CPU cores that this process may use, divided by torchrun's ranks on this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def device_name(device: torch.device) -> str:
    """Describes a device: the GPU's product name, or the number of CPU threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"


def describe() -> dict[str, Any]:
    """Versions of Python and of packages, and the revision of the code: {"python", "packages", "git"}."""
    return {
        "python": platform.python_version(),
        "packages": {**{name: _version(name) for name in PACKAGES}, "torch": torch.__version__},
        "git": _git_revision(),
    }


def report() -> dict[str, str | None]:
    """The lines of a bug report: system, Python, packages, devices, code revision, this package's folder.

    The value is None for a package that is not installed.
    """
    git = _git_revision()
    revision = git["revision"] + (" with local changes" if git["dirty"] else "") if git else None
    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: torch.__version__ if name == "torch" else _version(name) for name in (*PACKAGES, *OPTIONAL)},
        "cpu": f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "cuda": torch.version.cuda,
        "cudnn": str(torch.backends.cudnn.version()) if torch.backends.cudnn.is_available() else None,
        **_gpus(),
        "revision": revision,
        "folder": str(Path(__file__).parent),
    }


def _processor() -> str:
    """The processor's product name; on Linux from /proc/cpuinfo."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _gpus() -> dict[str, str | None]:
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {f"gpu {index}": name for index, name in enumerate(names)} or {"gpu": None}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_revision() -> dict[str, Any] | None:
    """The commit of this code, and whether tracked files differ from it; None outside of a git checkout."""
    folder = Path(__file__).parent
    try:
        _git(
            folder, "ls-files", "--error-unmatch", Path(__file__).name
        )  # an installed copy may lie in another checkout
        revision = _git(folder, "rev-parse", "HEAD")
        return {"revision": revision, "dirty": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
