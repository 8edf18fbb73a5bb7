"""Names -> networks: making, saving and loading them.

Any `torch.nn.Module` takes part that reads views as (N, 3V, H, W), gives (N, 3, H, W), both in [0, 1], and has an
attribute `views` with the V names. One decorator registers it; its constructor's typed arguments are its options.
"""

import importlib
import importlib.util
import inspect
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
from pydantic import BaseModel
from pydantic import create_model as create_schema
from torch import nn

from kpac.config import Config, ModelConfig, Section, Source, load_config, nearest, validate
from kpac.errors import UserError
from kpac.files import whole_file

NetworkClass = TypeVar("NetworkClass", bound=type[nn.Module])
FORMAT = 1  # of the header of a weights file


@dataclass(frozen=True)
class Network:
    """A registered name: a class, the arguments that the name fixes, and the schema of the remaining ones."""

    cls: type[nn.Module]
    fixed: dict[str, Any]
    schema: type[BaseModel]


_networks: dict[str, Network] = {}


def register(name: str, defaults: dict[str, Any] | None = None, **fixed: Any) -> Callable[[NetworkClass], NetworkClass]:
    """Class decorator: makes a network known under a name.

    Args:
        name: what `model.name` says in a config.
        defaults: other defaults than the constructor's, for some of its arguments.
        fixed: arguments that this name fixes; they are no options of it.

    Raises:
        ValueError: the name is taken.
    """

    def decorate(cls: NetworkClass) -> NetworkClass:
        if name in _networks:
            raise ValueError(f"a network named '{name}' is registered already: {_networks[name].cls.__qualname__}")
        _networks[name] = Network(cls, fixed, _schema(cls, name, defaults or {}, fixed))
        return cls

    return decorate


def load_plugins(plugins: Iterable[str]) -> None:
    """Runs Python code that registers networks.

    Args:
        plugins: files (`my_network.py`, relative to the working directory) or importable modules
        (`my_package.networks`).
            Each runs once.

    Raises:
        UserError: no such file or module.
    """
    for plugin in plugins:
        if not plugin.endswith(".py"):
            try:
                importlib.import_module(plugin)
            except ModuleNotFoundError as error:
                raise UserError(
                    f"plugins: no module '{error.name}', which '{plugin}' needs; is it installed?"
                ) from None
            continue
        path = Path(plugin).resolve()
        module_name = f"kpac_plugin_{path.stem}"
        if module_name in sys.modules:
            continue
        if not path.is_file():
            raise UserError(f"plugins: {plugin}: no such file; expected Python code that registers a network")
        spec = importlib.util.spec_from_file_location(module_name, path)
        sys.modules[module_name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[module_name])


def model_names() -> list[str]:
    """The registered names, sorted."""
    return sorted(_networks)


def resolve_model(config: Config) -> Config:
    """Checks a configuration's `model` section against the network that it names, and fills in that network's defaults.

    Raises:
        UserError: unknown name or option (the nearest valid one is named), or a value of the wrong type or range.
    """
    load_plugins(config.plugins)
    name = config.model.name
    options = _resolve(name, config.model.options, config.sources)
    return config.model_copy(update={"model": ModelConfig(name=name, **options)})


def config_schema() -> dict[str, Any]:
    """The JSON schema of a YAML file, with the options of every registered network."""
    schema = Config.model_json_schema()
    schema["properties"]["extends"] = {
        "type": "string",
        "description": "A YAML file to build on, relative to this one.",
    }
    schema["required"] = []  # what a file leaves out may come from the file that it extends
    choices = []
    for name in model_names():
        options = _networks[name].schema.model_json_schema()
        options["properties"]["name"] = {"const": name}
        choices.append(options)
    schema["$defs"]["ModelConfig"] = {"anyOf": choices}
    return schema


def create_model(name: str, **options: Any) -> nn.Module:
    """Makes a network with fresh weights, drawn from torch's default generator.

    Args:
        name: a registered name: "kpac_2level", "kpac_3level", "kpac_dual", or your own.
        options: see the network's class, `kpac.KPACNet` for ours.

    Raises:
        UserError: unknown name or option, or a value of the wrong type or range.
    """
    network = _find(name)
    resolved = _resolve(name, options)
    model = network.cls(**resolved, **network.fixed)
    model.config = {"name": name, **resolved}
    return model


def save_model(model: nn.Module, path: str | Path, **facts: Any) -> None:
    """Writes the weights as safetensors, with the network's name and options in the header.

    Args:
        model: made by `create_model` or `load_model`.
        path: a .safetensors file; replaced at once, never half-written.
        facts: what else the header shall say, such as the iteration; must be JSON.
    """
    header = {"format": FORMAT, "model": model.config, **facts}
    tensors = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
    with whole_file(path) as partial:
        safetensors.torch.save_file(tensors, partial, metadata={"kpac": json.dumps(header)})


def read_header(path: str | Path) -> dict[str, Any]:
    """The header of a weights file: `model` (name and options) and whatever facts were saved.

    Raises:
        UserError: no such file, or not one that `save_model` wrote.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such weights file")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise UserError(f"{path}: not a whole .safetensors file ({error}); copy or train it again") from None
    if "kpac" not in metadata:
        raise UserError(f"{path}: a .safetensors file without a 'kpac' header; expected one that save_model wrote")
    return json.loads(metadata["kpac"])


def load_model(path: str | Path) -> nn.Module:
    """Makes the network that a weights file describes and fills it; nothing in the file is executed.

    Args:
        path: a .safetensors file, the folder of a run, whose best weights are taken, or a folder with a
            model.safetensors.

    Returns:
        The network on the CPU, in evaluation mode.

    Raises:
        UserError: missing, damaged or foreign file; an unknown network; tensors that do not fit.
    """
    path = weights_file(path)
    model_config = dict(read_header(path)["model"])
    model = create_model(model_config.pop("name"), **model_config)
    load_weights(model, path)
    return model.eval()


def model_of(path: Path, overrides: Sequence[str] = ()) -> nn.Module:
    """The network of a YAML file, with fresh weights, or of a weights file or run.

    Raises:
        UserError: see `load_config` and `load_model`; or overrides given to something other than a YAML file.
    """
    if path.suffix in (".yaml", ".yml"):
        config = resolve_model(load_config(path, overrides))
        return create_model(config.model.name, **config.model.options)
    if overrides:
        raise UserError(f"{path}: '{overrides[0]}' can change a YAML file only")
    return load_model(path)


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Fills a network from a weights file of the same architecture.

    Raises:
        UserError: the first tensor that is missing, superfluous or of another shape, with both shapes.
    """
    read_header(path)  # for its checks
    found = safetensors.torch.load_file(path)
    expected = model.state_dict()
    for key in [*expected, *found]:
        wanted, got = (tuple(tensors[key].shape) if key in tensors else "nothing" for tensors in (expected, found))
        if wanted != got:
            raise UserError(
                f"{path}: weights of another network: '{key}' should be {wanted}, found {got}; "
                f"the file holds {_summary(read_header(path)['model'])}, the model is {_summary(model.config)}"
            )
    model.load_state_dict(found)


def weights_file(path: str | Path) -> Path:
    """The weights file that a path means: itself, or the best weights of a run's folder.

    Raises:
        UserError: nothing there.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; expected a .safetensors file or the folder of a run")
    if not path.is_dir():
        return path
    candidates = [path / "checkpoints" / "best.safetensors", path / "model.safetensors"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    expected = " or ".join(str(candidate.relative_to(path)) for candidate in candidates)
    raise UserError(f"{path}: holds no {expected}; expected the folder of a run that has validated, or of a model")


def _find(name: str) -> Network:
    for entry_point in entry_points(group="kpac.networks"):
        if entry_point.name == name and name not in _networks:
            entry_point.load()
    if name not in _networks:
        raise UserError(f"model.name: no network is called '{name}'{nearest(name, _networks)}")
    return _networks[name]


def _resolve(name: str, options: dict[str, Any], sources: Iterable[Source] = ()) -> dict[str, Any]:
    return validate(_find(name).schema, options, sources, under="model").model_dump()


def _schema(cls: type[nn.Module], name: str, defaults: dict[str, Any], fixed: dict[str, Any]) -> type[BaseModel]:
    """The options of a network as a pydantic model, from its constructor's signature."""
    parameters = list(inspect.signature(cls.__init__, eval_str=True).parameters.values())[1:]
    fields = {}
    for parameter in parameters:
        if parameter.name in fixed:
            continue
        default = defaults.get(parameter.name, ... if parameter.default is parameter.empty else parameter.default)
        annotation = Any if parameter.annotation is parameter.empty else parameter.annotation
        fields[parameter.name] = (annotation, default)
    return create_schema(name, __base__=Section, **fields)


def _summary(model_config: dict[str, Any]) -> str:
    options = ", ".join(f"{key} {model_config[key]}" for key in ("width", "blocks") if key in model_config)
    return f"{model_config['name']} ({options})" if options else model_config["name"]
