"""Exports a trained network to a file that runs without this package: ONNX, or PyTorch's own .pt2.

The exported network has the same input and output, views (1, 3V, H, W) -> (1, 3, H, W) in [0, 1], for any height and
width: padding to a multiple of the network's stride is part of the graph. PyTorch's exporters
keep only one side of a branch on a size, so the padding is written as indexing, without branches.

Export needs the extra `export`: pip install 'kpac[export]'. Running does not: an ONNX file needs onnxruntime alone.
"""

import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx.experimental import _config as size_settings

from kpac.errors import UserError
from kpac.files import atomic_write
from kpac.models.interface import ImageNetwork

OPSET = 18  # the lowest opset that the exporter writes without a down-conversion, in every PyTorch from 2.6 on
CHECKED_SIZES = ((64, 64), (75, 101), (130, 58))  # divisible by 8, and not
SMALLEST_SIZE = (3, 2)  # smaller than the stride, so the deepest features have a single position
TOLERANCE = 1e-4
ANY_SIZE = "backed_size_oblivious"  # without it, a .pt2 file refuses images whose features have one row or column


class Exportable(nn.Module):
    """Wraps a network so that padding to a multiple of its stride has no branches.

    Args:
        network: a KPACNet, or another network that accepts all sizes.

    Shape: as the network's.
    """

    def __init__(self, network: ImageNetwork):
        super().__init__()
        self.multiple = getattr(network, "multiple", 1)
        # Wrapped networks of other projects pad images themselves; `core` is the network without the padding.
        self.network = getattr(network, "core", network) if self.multiple > 1 else network

    def forward(self, views: Tensor) -> Tensor:
        if self.multiple == 1:
            return self.network(views)
        rows, columns = (_mirrored(views, size, self.multiple) for size in views.shape[-2:])
        restored = self.network(views.index_select(2, rows).index_select(3, columns))
        # Not as slices: they branch on whether they change the size, and export would keep only one side.
        rows, columns = (_positions(views, size) for size in views.shape[-2:])
        return restored.index_select(2, rows).index_select(3, columns)


def export_model(model: ImageNetwork, path: str | Path) -> float:
    """Writes a model to a file, and compares the file's outputs with the model's on the sizes of `checked_sizes`.

    Args:
        model: made by `create_model` or `load_model`, on the CPU.
        path: file to write; ends in .onnx or .pt2.

    Returns:
        The largest difference of the outputs.

    Raises:
        UserError: another suffix, a missing package, a network that cannot be exported, or outputs that differ by more
            than 1e-4. No file is written then.
    """
    path = Path(path)
    writers: dict[str, tuple[Callable, Callable]] = {".onnx": (_write_onnx, _run_onnx), ".pt2": (_write_pt2, _run_pt2)}
    if path.suffix not in writers:
        raise UserError(f"{path}: expected a name that ends in .onnx or .pt2")
    write, run = writers[path.suffix]
    model = model.eval()
    with atomic_write(path) as partial:
        try:
            write(Exportable(model).eval(), _example(model, *CHECKED_SIZES[1]), partial)
        except ImportError as error:
            raise UserError(f"exporting needs the package '{error.name}': pip install 'kpac[export]'") from None
        except (torch.onnx.OnnxExporterError, torch._dynamo.exc.UserError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"network '{model.config['name']}' cannot be exported with free sizes: {reason}") from None
        try:
            difference = max(_difference(model, run(partial), size) for size in checked_sizes(model, path.suffix))
        except AssertionError as error:  # a .pt2 file raises this for a size that it does not accept
            raise UserError(f"{path}: does not take every size ({error}); export .onnx, or update PyTorch") from None
        if not difference <= TOLERANCE:
            raise UserError(f"{path}: differs from the model by {difference:.1e}, more than {TOLERANCE:g}; not written")
    return difference


def checked_sizes(model: ImageNetwork, suffix: str) -> tuple[tuple[int, int], ...]:
    """Heights and widths on which a file is compared with its model.

    The smallest size is left out for networks of other projects, and for .pt2 files of older versions of PyTorch.
    """
    smallest = hasattr(model, "multiple") and (suffix != ".pt2" or hasattr(size_settings, ANY_SIZE))
    return (*CHECKED_SIZES, SMALLEST_SIZE) if smallest else CHECKED_SIZES


def _positions(views: Tensor, count: int) -> Tensor:
    """Indices 0 to count - 1 on the device of the views at run time; `arange` would fix the device at export."""
    return views.new_ones(count, dtype=torch.int64).cumsum(0) - 1


def _mirrored(views: Tensor, size: int, multiple: int) -> Tensor:
    """Source row (or column) of each position in the padded image, as in `kpac.models.layers.pad_to_multiple`."""
    position = _positions(views, (size + multiple - 1) // multiple * multiple)
    mirrored = (size - 1) - (position - (size - 1)).abs()
    repeated = position.clamp(max=size - 1)  # for an image too small to be mirrored
    return torch.where(mirrored.min() < 0, repeated, mirrored)


def _example(model: ImageNetwork, height: int, width: int) -> Tensor:
    return torch.rand(1, 3 * len(model.views), height, width, generator=torch.Generator().manual_seed(height))


def _difference(model: ImageNetwork, run: Callable[[Tensor], Tensor], size: tuple[int, int]) -> float:
    views = _example(model, *size)
    with torch.no_grad():
        return (run(views) - model(views)).abs().max().item()


def _dynamic_shapes() -> dict:
    return {"views": {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}}


def _write_onnx(network: ImageNetwork, views: Tensor, path: Path) -> None:
    import onnx  # noqa: F401  (the exporter needs it; imported here to name it in the error if it is missing)
    import onnxruntime  # noqa: F401
    import onnxscript  # noqa: F401

    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network,
                (views,),
                str(path),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=["views"],
                output_names=["restored"],
                dynamic_shapes=_dynamic_shapes(),
                external_data=False,
            )
    finally:
        logger.setLevel(level)


def _run_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda views: torch.from_numpy(session.run(None, {"views": views.numpy().astype(np.float32)})[0])


def _write_pt2(network: ImageNetwork, views: Tensor, path: Path) -> None:
    settings = {ANY_SIZE: True} if hasattr(size_settings, ANY_SIZE) else {}
    patch = size_settings.patch  # type: ignore[attr-defined]  # PyTorch adds it when the module is imported
    with torch.no_grad(), patch(settings):
        program = torch.export.export(network, (views,), dynamic_shapes=_dynamic_shapes(), strict=False)
    torch.export.save(program, path)


def _run_pt2(path: Path) -> Callable[[Tensor], Tensor]:
    return torch.export.load(path).module()
