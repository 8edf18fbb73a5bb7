"""Converts the authors' checkpoints to our networks, and our networks to their checkpoints.

An authors' checkpoint (see `official_file`) holds float32 arrays, in the order in which our networks register their
parameters. Weights of convolutions are [height, width, in, out], weights of transposed convolutions [height, width,
out, in]; each is followed by its bias.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from kpac.errors import UserError
from kpac.models.interface import ImageNetwork
from kpac.models.official_file import read_params, write_params
from kpac.models.registry import create_model

ARRAYS_A_BLOCK = 17  # shared kernel, ten of scale attention, four of shape attention, two of fusion
DUAL = ("center", "left", "right")


def load_official(path: str | Path) -> ImageNetwork:
    """Loads an authors' checkpoint; infers levels, blocks, width and views from the shapes of its arrays.

    Nothing in the file is executed: a pickle of anything but NumPy arrays is refused.

    Returns:
        The network on the CPU, in evaluation mode.

    Raises:
        UserError: the file is missing, truncated or of another kind, or its pickle names something to execute. Or the
            file holds another architecture; the message names the first parameter that differs, with both shapes.
    """
    path = Path(path)
    arrays = read_params(path)
    name, options = _architecture(path, arrays)
    with torch.device("meta"):  # shapes only, no memory: an untrusted file can ask for any width
        expected = list(create_model(name, **options).named_parameters())
    for index in range(max(len(expected), len(arrays))):
        key, wanted = (
            (expected[index][0], _official_shape(expected[index][1])) if index < len(expected) else ("-", None)
        )
        found = arrays[index].shape if index < len(arrays) else None
        if wanted != found:
            raise UserError(
                f"{path}: not a published architecture: parameter {index} ('{key}' of {name}) should be "
                f"{wanted or 'absent'}, found {found or 'nothing'}"
            )
    model = create_model(name, **options)
    with torch.no_grad():
        for parameter, array in zip(model.parameters(), arrays, strict=True):
            tensor = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
            parameter.copy_(tensor.permute(3, 2, 0, 1) if tensor.dim() == 4 else tensor)
    return model.eval()


def save_official(model: ImageNetwork, path: str | Path) -> None:
    """Saves a network in the form that the authors' evaluation script reads; see the module's docstring.

    Args:
        model: a network of a published architecture, any width and number of blocks.
        path: the .npz file to write, readable by NumPy under Python 2 and 3.

    Raises:
        UserError: the network has a part switched off or replaced; the authors' graph cannot represent that.
    """
    options = model.config
    for option, published in PUBLISHED.items():
        if options.get(option) != published:
            raise UserError(
                f"{path}: the authors' format requires {option} {published}, this model has {options.get(option)}; "
                "it cannot be written in their format"
            )
    arrays = []
    for parameter in model.parameters():
        values = parameter.detach().cpu().float()
        arrays.append((values.permute(2, 3, 1, 0) if values.dim() == 4 else values).numpy())
    write_params(arrays, path)


PUBLISHED = {
    "block": "kpac",
    "kernel_size": 5,
    "dilations": (1, 2, 3, 4, 5),
    "share_kernel": True,
    "scale_attention": True,
    "shape_attention": True,
    "shape_pooling": None,
}


def _architecture(path: Path, arrays: list[np.ndarray]) -> tuple[str, dict[str, Any]]:
    """Name and options of the published network whose shapes come closest to the arrays'."""
    first = arrays[0].shape
    if len(first) != 4 or first[2] not in (3, 6) or first[3] < 4:
        raise UserError(f"{path}: the first parameter should be (5, 5, 3 or 6, width of 4 or more), found {first}")
    levels = next((levels for levels, rest in ((2, 24), (3, 32)) if (len(arrays) - rest) % ARRAYS_A_BLOCK == 0), 2)
    blocks = max(0, round((len(arrays) - (24 if levels == 2 else 32)) / ARRAYS_A_BLOCK))
    options: dict[str, Any] = {"width": int(first[3]), "blocks": blocks}
    if first[2] == 6 and levels == 2:
        options["views"] = DUAL
    name = {(2, 3): "kpac_2level", (2, 6): "kpac_2level", (3, 3): "kpac_3level", (3, 6): "kpac_dual"}[levels, first[2]]
    return name, options


def _official_shape(parameter: torch.Tensor) -> tuple[int, ...]:
    shape = tuple(parameter.shape)
    return (shape[2], shape[3], shape[1], shape[0]) if len(shape) == 4 else shape
