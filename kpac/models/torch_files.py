"""Reads weights from `torch.save` files: training checkpoints of kpac, and state dicts of its networks."""

import hashlib
import logging
import pickle
import re
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kpac.errors import UserError

SUFFIXES = (".pt", ".pth", ".ckpt")
NESTED = ("model", "state_dict", "params_ema", "params", "network")  # where other programs keep the state dict
PREFIXES = re.compile(r"^(?:module\.|_orig_mod\.)+")  # added by DistributedDataParallel and torch.compile
SEAL = re.compile(rb"\nsha256 ([0-9a-f]{64})\n")  # the last line of a training checkpoint
SEAL_BYTES = len("\nsha256 \n") + 64
log = logging.getLogger(__name__)


class UnknownNetwork(UserError):
    """The tensors fit no network of kpac; they may belong to a network of another project."""


def read_torch_file(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Reads the network's description and weights from a `torch.save` file; executes nothing in it.

    Args:
        path: a training checkpoint (`iteration_*.pt`), or a state dict, alone or inside a dictionary. If a checkpoint
            has averaged weights, these are returned. The prefixes `module.` and `_orig_mod.` are removed from names.

    Returns:
        A header as in our .safetensors files, with the network's name and options under "model"; and the tensors. A
        state dict does not name its network: it is inferred from the names and shapes of the tensors.

    Raises:
        UserError: the file is damaged or of another kind, or holds the weights of an unknown network.
    """
    content = load_content(path)
    if isinstance(content, dict) and {"iteration", "config", "model", "average"} <= content.keys():
        model = content["config"]["model"]
        return {"model": model, "iteration": content["iteration"]}, {**content["model"], **(content["average"] or {})}
    nested = [content[key] for key in NESTED if key in content] if isinstance(content, dict) else []
    inside = next(filter(_is_state, nested), content)
    if not _is_state(inside):
        raise UnknownNetwork(
            f"{path}: neither a training checkpoint of kpac nor a state dict; expected weights of a network"
        )
    tensors = {PREFIXES.sub("", name): value for name, value in inside.items()}
    model = _network_of(path, tensors)
    _say_which(path, ", ".join(str(value) if key == "name" else f"{key} {value}" for key, value in model.items()))
    return {"model": model}, tensors


def load_content(path: Path) -> Any:
    """Loads the tensors and plain values of a `torch.save` file; executes nothing in it.

    Raises:
        UserError: the file is damaged, or holds something that would execute code.
    """
    try:
        if is_damaged(path.read_bytes()):
            raise zipfile.BadZipFile
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if archive.testzip():  # torch.load does not verify checksums
                    raise zipfile.BadZipFile
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (pickle.UnpicklingError, RuntimeError, zipfile.BadZipFile, EOFError, ValueError, KeyError):
        raise UserError(
            f"{path}: damaged, or not a weights file; expected a training checkpoint or a state dict that torch.save "
            "wrote. Nothing in it was executed"
        ) from None


def is_damaged(content: bytes) -> bool:
    """Whether the checksum that ends a training checkpoint of kpac is wrong; False for files without a checksum."""
    seal = SEAL.fullmatch(content[-SEAL_BYTES:])
    return seal is not None and hashlib.sha256(content[:-SEAL_BYTES]).hexdigest().encode() != seal[1]


def _is_state(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(entry, Tensor) for entry in value.values())


def _network_of(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Name and options of our network that has these tensors; assumes the published dilations."""

    def count(pattern: str) -> int:
        return len({found[1] for name in tensors if (found := re.match(pattern, name))})

    first = tensors.get("encoder.0.0.weight")
    levels = count(r"encoder\.(\d+)\.") - 1
    if first is None or first.ndim != 4 or (levels, first.shape[1]) not in ((2, 3), (3, 3), (3, 6)):
        raise UnknownNetwork(
            f"{path}: a state dict of an unknown network (first tensor '{next(iter(tensors))}'); expected a network of "
            "kpac, or a .safetensors file that kpac.models.save_model wrote"
        )
    name = "kpac_dual" if first.shape[1] == 6 else f"kpac_{levels}level"
    options: dict[str, Any] = {"width": first.shape[0], "blocks": count(r"blocks\.(\d+)\.")}
    if "blocks.0.kernels.0" in tensors:
        kernels = count(r"blocks\.0\.kernels\.(\d+)$")
        filters, _, side, _ = tensors["blocks.0.kernels.0"].shape
        branches = tensors["blocks.0.fusion.weight"].shape[1] // filters
        if branches != 5:
            raise UserError(
                f"{path}: a state dict does not name its {branches} dilations; expected the 5 published ones"
            )
        options |= {"kernel_size": side, "share_kernel": kernels == 1}
        options |= {part: f"blocks.0.{part}.weigh.weight" in tensors for part in ("scale_attention", "shape_attention")}
    elif options["blocks"]:
        options["block"] = "plain"
    return {"name": name, **options}


@cache
def _say_which(path: Path, network: str) -> None:
    log.warning("%s: loaded as the network %s, which its tensors fit", path, network)
