"""What a result was made with: versions, code revision, device."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from kpac.errors import UserError

PACKAGES = ("kpac", "torch", "torchvision", "numpy", "opencv-python-headless", "scikit-image", "safetensors")


def choose_device(name: str = "auto") -> torch.device:
    """The device of a name: "cpu", "cuda", or "auto" for a CUDA device when there is one.

    Raises:
        UserError: "cuda" was asked for and PyTorch finds none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("device: 'cuda' was asked for, but PyTorch finds no CUDA device; use 'auto' or 'cpu'")
    return torch.device(name)


def device_name(device: torch.device) -> str:
    """The device in words, such as the GPU's product name or the number of CPU threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"


def describe() -> dict[str, Any]:
    """Versions of what computes, and the revision of the code: {"python", "packages", "git"}."""
    return {
        "python": platform.python_version(),
        "packages": {**{name: _version(name) for name in PACKAGES}, "torch": torch.__version__},
        "git": _git_revision(),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_revision() -> dict[str, Any] | None:
    """The commit that this code comes from, and whether tracked files differ from it; None outside of a checkout."""
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
