"""Saves and loads networks as self-contained safetensors files: the header holds the network's name and options."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import safetensors
import safetensors.torch
import torch

from kpac.config import load_config
from kpac.errors import UserError
from kpac.files import atomic_write
from kpac.models import torch_files
from kpac.models.interface import ImageNetwork
from kpac.models.registry import create_model, resolve_model, without_retired
from kpac.weights.store import find_weights

FORMAT = 1  # version of the header


def save_model(model: ImageNetwork, path: str | Path, dtype: torch.dtype | None = None, **facts: Any) -> None:
    """Writes the weights as safetensors, with the network's name and options in the header.

    Args:
        model: made by `create_model` or `load_model`.
        path: a .safetensors file; written atomically.
        dtype: type of the numbers in the file, such as torch.float16 for half the size; None keeps the model's.
        facts: further entries for the header, such as the iteration; JSON values.
    """
    if not hasattr(model, "config"):
        raise ValueError("expected a model from create_model or load_model, which knows its name and options")
    header = {"format": FORMAT, "model": model.config, **facts}
    tensors = {key: value.detach().to("cpu", dtype).contiguous() for key, value in model.state_dict().items()}
    content = safetensors.torch.save(tensors, metadata={"kpac": json.dumps(header)})
    with atomic_write(path) as partial:
        partial.write_bytes(content)


def read_weights_header(path: str | Path) -> dict[str, Any]:
    """Reads the header of a weights file: `model` (name and options), and the facts saved with it.

    Raises:
        UserError: no such file, or not one that `save_model` wrote.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such weights file")
    if path.suffix == ".npz":
        command = f"kpac convert {path} {path.with_suffix('.safetensors')}"
        raise UserError(f"{path}: expected a .safetensors file; '{command}' converts an authors' checkpoint")
    if path.suffix in torch_files.SUFFIXES:
        return torch_files.read_torch_file(Path(path))[0]
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise UserError(f"{path}: not a whole .safetensors file ({error}); copy or train it again") from None
    if "kpac" not in metadata:
        raise torch_files.UnknownNetwork(
            f"{path}: a .safetensors file without a 'kpac' header; expected one that save_model wrote"
        )
    try:
        header = json.loads(metadata["kpac"])
        version, _ = header["format"], header["model"]["name"]
    except (KeyError, ValueError, TypeError):
        raise UserError(
            f"{path}: a .safetensors file with a damaged 'kpac' header; expected one that save_model wrote"
        ) from None
    if version != FORMAT:
        raise UserError(f"{path}: has header format {version}, this version of kpac reads {FORMAT}; update kpac")
    return header


def load_model(path: str | Path) -> ImageNetwork:
    """Loads a network from a weights file; executes nothing in the file.

    Args:
        path: a .safetensors file; the folder of a run (for its best weights); a folder with a model.safetensors; a
            `torch.save` file (see `kpac.models.torch_files`); a name that `kpac weights` lists; or a checkpoint of
            another project's network (see `kpac.zoo.checkpoints`).

    Returns:
        The network on the CPU, in evaluation mode.

    Raises:
        UserError: the file is missing, damaged or of another kind; the network is unknown; or the tensors do not fit.
    """
    path = weights_file(path)
    try:
        options = dict(read_weights_header(path)["model"])
    except torch_files.UnknownNetwork:
        from kpac.zoo.checkpoints import load_zoo_model  # needs an extra

        return cast(ImageNetwork, load_zoo_model(path))
    name = options.pop("name")
    try:
        model = create_model(name, **without_retired(name, options))
    except UserError as error:
        raise UserError(f"{path}: {error}", "plugin") from None
    load_weights(model, path)
    return model.eval()


def model_of(path: Path, overrides: Sequence[str] = ()) -> ImageNetwork:
    """Creates the network of a YAML file with initial weights, or loads the network of a weights file or run.

    Raises:
        UserError: see `load_config` and `load_model`; or there are overrides and `path` is not a YAML file.
    """
    if path.suffix in (".yaml", ".yml"):
        config = resolve_model(load_config(path, overrides))
        return create_model(config.model.name, **config.model.options)
    if overrides:
        raise UserError(f"{path}: '{overrides[0]}' needs a YAML file; the options of weights are fixed")
    return load_model(path)


def load_weights(model: ImageNetwork, path: str | Path) -> None:
    """Loads the weights of a file into a network of the same architecture.

    Raises:
        UserError: names the first tensor that is missing, unexpected or of another shape, with both shapes.
    """
    header = read_weights_header(path)  # also checks the file
    if Path(path).suffix in torch_files.SUFFIXES:
        _, found = torch_files.read_torch_file(Path(path))
    else:
        found = safetensors.torch.load_file(path)
    expected = model.state_dict()
    for key in [*expected, *found]:
        wanted, got = (tuple(tensors[key].shape) if key in tensors else "nothing" for tensors in (expected, found))
        if wanted != got:
            raise UserError(
                f"{path}: weights of another network: '{key}' should be {wanted}, found {got}; "
                f"the file holds {_summary(header['model'])}, the model is {_summary(model.config)}"
            )
    model.load_state_dict(found)


def weights_file(path: str | Path) -> Path:
    """Finds the weights file for a path: the file itself, the best weights of a run's folder, or weights by name.

    Raises:
        UserError: there is no such file.
    """
    path = Path(path)
    if not path.exists() and path.name == str(path) and not path.suffix:
        return find_weights(path.name)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; expected a .safetensors file or the folder of a run")
    if not path.is_dir():
        return path
    candidates = [path / "checkpoints" / "best.safetensors", path / "model.safetensors"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    expected = " or ".join(str(candidate.relative_to(path)) for candidate in candidates)
    raise UserError(
        f"{path}: holds no {expected}; expected the folder of a model, or of a run after its first validation"
    )


def _summary(model_config: dict[str, Any]) -> str:
    options = ", ".join(f"{key} {model_config[key]}" for key in ("width", "blocks") if key in model_config)
    return f"{model_config['name']} ({options})" if options else model_config["name"]
