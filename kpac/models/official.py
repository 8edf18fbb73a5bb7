"""The authors' checkpoints: .npz files that Python 2 pickled, read as data alone, and written in the same order.

Such a file has one entry, `params`: an object array of float32 arrays, convolution weights as [height, width, in, out],
transposed ones as [height, width, out, in], each followed by its bias, in the order in which our networks
register their parameters.
"""

import io
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from kpac.errors import UserError
from kpac.files import whole_file
from kpac.models.registry import create_model

ARRAYS_A_BLOCK = 17  # shared kernel, ten of scale attention, four of shape attention, two of fusion
DUAL = ("center", "left", "right")


def load_official(path: str | Path) -> nn.Module:
    """Makes the network that an authors' checkpoint holds; levels, blocks, width and views follow from its shapes.

    Nothing in the file is executed: its pickle may rebuild NumPy arrays and name nothing else.

    Returns:
        The network on the CPU, in evaluation mode.

    Raises:
        UserError: the file is missing, truncated or of another kind, names something to execute, or holds another
            architecture; then the first parameter that differs is named, with both shapes.
    """
    path = Path(path)
    arrays = _read_params(path)
    name, options = _architecture(path, arrays)
    model = create_model(name, **options)
    expected = list(model.named_parameters())
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
    with torch.no_grad():
        for (_, parameter), array in zip(expected, arrays, strict=True):
            tensor = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
            parameter.copy_(tensor.permute(3, 2, 0, 1) if tensor.dim() == 4 else tensor)
    return model.eval()


def save_official(model: nn.Module, path: str | Path) -> None:
    """Writes a network's parameters as the authors' evaluation script reads them; see the module's docstring.

    Args:
        model: a network of a published architecture, any width and number of blocks.
        path: an .npz file, readable by NumPy under Python 2 and 3.

    Raises:
        UserError: the network has a part switched off or exchanged, which the authors' graph cannot hold.
    """
    options = model.config
    for option, published in PUBLISHED.items():
        if options.get(option) != published:
            raise UserError(
                f"{path}: the authors' graph has {option} {published}, this model {options.get(option)}; "
                "it cannot be written in their format"
            )
    arrays = np.empty(len(list(model.parameters())), dtype=object)
    for index, parameter in enumerate(model.parameters()):
        values = parameter.detach().cpu().float()
        arrays[index] = np.ascontiguousarray((values.permute(2, 3, 1, 0) if values.dim() == 4 else values).numpy())
    entry = io.BytesIO()
    np.lib.format.write_array_header_1_0(entry, {"descr": "|O", "fortran_order": False, "shape": arrays.shape})
    _Python2Pickler(entry, protocol=2).dump(arrays)
    with whole_file(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("params.npy", entry.getvalue())


PUBLISHED = {
    "block": "kpac",
    "kernel_size": 5,
    "dilations": (1, 2, 3, 4, 5),
    "share_kernel": True,
    "scale_attention": True,
    "shape_attention": True,
    "shape_pooling": None,
}


def _read_params(path: Path) -> list[np.ndarray]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected an authors' checkpoint (.npz)")
    if path.suffix == ".safetensors":
        raise UserError(f"{path}: a model of ours, not an authors' checkpoint; --authors writes it in their format")
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            if "params" not in names:
                raise UserError(f"{path}: expected an entry 'params', found {', '.join(names) or 'none'}")
            content = archive.read("params.npy")
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise UserError(f"{path}: not a whole .npz file ({error}); copy it again") from None
    try:
        arrays = _unpickle_array(content)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: {error}") from None
    except (ValueError, EOFError, TypeError, AttributeError, IndexError, KeyError, ImportError) as error:
        raise UserError(f"{path}: 'params' cannot be read as a pickled array of arrays ({error})") from None
    arrays = list(arrays)
    if not arrays or not all(isinstance(array, np.ndarray) and array.dtype.kind == "f" for array in arrays):
        raise UserError(f"{path}: 'params' should be a list of float arrays, found something else")
    return arrays


def _unpickle_array(content: bytes) -> Any:
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(stream)
    if dtype.hasobject:
        return np.asarray(_ArrayUnpickler(stream, encoding="latin1").load(), dtype=object).reshape(shape)
    raise ValueError("expected pickled arrays, found plain numbers")


def _latin1_bytes(text: str, encoding: str) -> bytes:
    """Python 3 spells bytes this way in the pickles that Python 2 reads."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"names the text encoding '{encoding}', which no array needs; refused")
    return text.encode("latin1")


_reconstruct = np.ndarray.__reduce__(np.empty(0))[0]


class _ArrayUnpickler(pickle.Unpickler):
    """Rebuilds NumPy arrays; any other name in the file is refused before it is looked up."""

    ALLOWED = {
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _latin1_bytes,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(
                f"names '{module}.{name}', which no array needs; refused, nothing was executed"
            )
        return self.ALLOWED[module, name]


class _Python2Pickler(pickle._Pickler):
    """Calls NumPy's array constructor by the name that it had under Python 2."""

    def save_global(self, obj: Any, name: str | None = None) -> None:
        if obj is _reconstruct:
            self.write(b"cnumpy.core.multiarray\n_reconstruct\n")
            self.memoize(obj)
        else:
            super().save_global(obj, name)

    dispatch = {**pickle._Pickler.dispatch, type(_reconstruct): save_global}


def _architecture(path: Path, arrays: list[np.ndarray]) -> tuple[str, dict[str, Any]]:
    """The name and options of the published network whose shapes come closest."""
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
