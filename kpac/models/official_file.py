"""Reads an authors' checkpoint file without executing anything in it, and writes one that Python 2 can read.

The file is an .npz with one entry, `params`: a pickled object array of float arrays. A pickle can call anything that it
names, and even NumPy's own constructors are unsafe with untrusted arguments: `ndarray((1,), "O", b"AAAAAAAA")` makes an
object at an address that the file chooses. The unpickler therefore replaces NumPy's names by stubs, which only store
their arguments. Afterwards, arrays are built from the stored bytes, which are checked first.
"""

import io
import lzma
import math
import pickle
import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kpac.errors import UserError
from kpac.files import atomic_write

ENTRY = "params.npy"


def read_params(path: Path) -> list[np.ndarray]:
    """Reads the arrays of an authors' checkpoint, in file order; nothing in the file is executed.

    Raises:
        UserError: the file is missing, truncated or of another kind, or its pickle names anything but arrays.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder; expected an authors' checkpoint, an .npz file")
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected an authors' checkpoint (.npz)")
    if path.suffix == ".safetensors":
        raise UserError(f"{path}: a model of ours, not an authors' checkpoint", "authors")
    try:
        with zipfile.ZipFile(path) as archive:
            if ENTRY not in archive.namelist():
                found = ", ".join(archive.namelist()) or "none"
                raise UserError(f"{path}: expected an entry '{ENTRY}', found {found}")
            content = archive.read(ENTRY)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, MemoryError) as error:
        raise UserError(f"{path}: not a whole .npz file ({_one_line(error)}); copy it again") from None
    try:
        return _arrays(content)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: {_one_line(error)}") from None
    except Exception as error:  # a damaged pickle may raise any exception, says the documentation of `pickle`
        raise UserError(f"{path}: 'params' cannot be read as a pickled array of arrays ({_one_line(error)})") from None


def write_params(arrays: Sequence[np.ndarray], path: str | Path) -> None:
    """Writes float arrays as an authors' checkpoint, readable by NumPy under Python 2 and 3."""
    params = np.empty(len(arrays), dtype=object)
    for index, array in enumerate(arrays):
        params[index] = np.ascontiguousarray(array)
    entry = io.BytesIO()
    np.lib.format.write_array_header_1_0(entry, {"descr": "|O", "fortran_order": False, "shape": params.shape})
    _Python2Pickler(entry, protocol=2).dump(params)
    with atomic_write(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(ENTRY, entry.getvalue())


def _arrays(content: bytes) -> list[np.ndarray]:
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(stream)
    if not dtype.hasobject:
        raise ValueError("expected pickled arrays, found plain numbers")
    params = _ArrayUnpickler(stream, encoding="latin1").load()
    if isinstance(params, _Array):
        params = params.items()
    if not isinstance(params, list) or shape != (len(params),):
        raise ValueError("expected one list of arrays, of the length in its header")
    if not params or not all(isinstance(array, _Array) for array in params):
        raise pickle.UnpicklingError("'params' should be a list of float arrays, found something else")
    return [array.numbers() for array in params]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


class _Stub:
    """Replaces a NumPy name in the pickle; stores its arguments and state and does nothing else.

    `__setstate__` is needed for safety: without it a pickle could set attributes of the class itself.
    """

    arguments: tuple[Any, ...] = ()
    state: Any = None

    def __init__(self, *arguments: Any):
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Text(_Stub):
    """`_codecs.encode`: bytes, which Python 3 writes as an encoded text in pickles of protocol 2 and below."""

    def content(self) -> bytes:
        text, encoding = self.arguments
        if encoding != "latin1":
            raise pickle.UnpicklingError("names a text encoding other than latin1, which no array needs; refused")
        return text.encode("latin1")


class _Dtype(_Stub):
    """`numpy.dtype`: arguments ("f4", False, True), state (3, "<", ...) with the byte order."""

    def is_object(self) -> bool:
        return self.arguments[0] in ("O", "O4", "O8")

    def numpy(self) -> np.dtype:
        code, order = self.arguments[0], self.state[1]
        if not re.fullmatch(r"f[248]", code) or order not in ("<", ">", "=", "|"):
            raise pickle.UnpicklingError("'params' should be a list of float arrays, found another type of numbers")
        return np.dtype(order + code)


class _Array(_Stub):
    """`_reconstruct`: an empty array, whose state is (version, shape, dtype, Fortran order, list or bytes)."""

    def items(self) -> list[Any]:
        """The elements of a one-dimensional object array."""
        _, shape, dtype, _, items = self.state
        if not dtype.is_object() or shape != (len(items),):
            raise ValueError("expected a one-dimensional array of arrays")
        return items

    def numbers(self) -> np.ndarray:
        _, shape, dtype, fortran, content = self.state
        dtype = dtype.numpy()
        if isinstance(content, _Text):
            content = content.content()
        elif isinstance(content, str):  # bytes pickled by Python 2
            content = content.encode("latin1")
        if len(shape) > 4 or not all(isinstance(size, int) and size >= 0 for size in shape):
            raise ValueError("an array has a shape that no parameter has")
        if len(content) != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"an array of shape {shape} has {len(content)} bytes")
        return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C").copy()


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles arrays as stubs; refuses any other name in the file before looking it up."""

    ALLOWED = {
        ("numpy.core.multiarray", "_reconstruct"): _Array,
        ("numpy._core.multiarray", "_reconstruct"): _Array,
        ("numpy", "ndarray"): _Stub,  # only an argument of _reconstruct, never called
        ("numpy", "dtype"): _Dtype,
        ("_codecs", "encode"): _Text,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(
                f"names '{module}.{name}', which no array needs; refused, nothing was executed"
            )
        return self.ALLOWED[module, name]

    def persistent_load(self, _: Any) -> Any:
        raise pickle.UnpicklingError("refers to objects outside of the file, which no array needs; refused")


_reconstruct = np.ndarray.__reduce__(np.empty(0))[0]


_Pickler: Any = getattr(pickle, "_Pickler")  # noqa: B009  # the pure-Python pickler: its methods can be overridden


class _Python2Pickler(_Pickler):
    """Writes the name of NumPy's array constructor as it was under Python 2."""

    def save_global(self, obj: Any, name: str | None = None) -> None:
        if obj is _reconstruct:
            self.write(b"cnumpy.core.multiarray\n_reconstruct\n")
            self.memoize(obj)
        else:
            super().save_global(obj, name)

    dispatch = {**_Pickler.dispatch, type(_reconstruct): save_global}
