"""The registry of networks: creates a network from its name and options.

The decorator `register` adds any `torch.nn.Module` that reads views as (N, 3V, H, W), returns (N, 3, H, W), both in
[0, 1], and has an attribute `views` with the V names. The typed arguments of its constructor are its options.
"""

import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel
from pydantic import create_model as create_schema
from torch import nn

from kpac.config import Config, ModelConfig, Section, Source, nearest, place, validate
from kpac.errors import UserError
from kpac.models.interface import ImageNetwork

NetworkClass = TypeVar("NetworkClass", bound=type[nn.Module])


@dataclass(frozen=True)
class Network:
    """Entry of the registry: a class, the arguments that the name fixes, and the schema of the others."""

    cls: type[nn.Module]
    fixed: dict[str, Any]
    schema: type[BaseModel]


_networks: dict[str, Network] = {}
# Networks of other papers; their modules are imported on first use.
_BASELINES = {"dpdnet": "kpac.zoo.dpdnet", "dpdnet_dual": "kpac.zoo.dpdnet", "nafnet": "kpac.zoo.nafnet"}

RETIRED = {"fast": "write 'train.compute.accelerate' instead"}
"""Options of earlier versions that changed no results -> what to write instead."""


def register(name: str, defaults: dict[str, Any] | None = None, **fixed: Any) -> Callable[[NetworkClass], NetworkClass]:
    """Class decorator that registers a network under a name.

    Args:
        name: the value of `model.name` in a config.
        defaults: defaults that replace those of the constructor.
        fixed: arguments that this name fixes; they are not options.

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
    """Imports the user's Python files or modules that register networks.

    Args:
        plugins: files (`my_network.py`, relative to the working directory) or importable modules
            (`my_package.networks`). Each runs once.

    Raises:
        UserError: no such file or module, or it raised an error.
    """
    for plugin in plugins:
        try:
            _load_plugin(plugin)
        except UserError:
            raise
        except ModuleNotFoundError as error:
            raise UserError(f"plugins: no module '{error.name}', which '{plugin}' needs; is it installed?") from None
        except Exception as error:  # user code may raise anything; report it as the user's error
            what = " ".join(str(error).split())
            raise UserError(f"plugins: {plugin}: {_line_of(error, plugin)}{type(error).__name__}: {what}") from error


def _load_plugin(plugin: str) -> None:
    if not plugin.endswith(".py"):
        importlib.import_module(plugin)
        return
    path = Path(plugin).resolve()
    module_name = "kpac_plugin_" + re.sub(r"\W", "_", str(path))
    if module_name in sys.modules:
        return
    if not path.is_file():
        raise UserError(f"plugins: {plugin}: no such file; expected Python code that registers a network")
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec
    assert spec.loader  # a .py file has one
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[module_name] = module


def _line_of(error: Exception, plugin: str) -> str:
    """The line of a plugin's file where an error was raised, as "line 3: "."""
    if isinstance(error, SyntaxError):
        return ""  # its message has the line already
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(Path(plugin).resolve())]
    return f"line {lines[-1]}: " if lines else ""


def model_names() -> list[str]:
    """The registered names, sorted."""
    return sorted({*_networks, *_BASELINES})


def resolve_model(config: Config) -> Config:
    """Checks the `model` section of a configuration and fills in the network's defaults.

    Raises:
        UserError: unknown name or option (the message suggests the nearest valid one), or a value of the wrong type or
            range.
    """
    load_plugins(config.plugins)
    name = config.model.name
    options = _resolve(name, config.model.options, config.sources)
    return config.model_copy(update={"model": ModelConfig(name=name, **options)})


def config_schema() -> dict[str, Any]:
    """The JSON schema of a YAML file, with the options of every registered network.

    No key is required: a file may inherit any of them from the file that it extends.
    """
    for name in [*_BASELINES, *(entry_point.name for entry_point in entry_points(group="kpac.networks"))]:
        _find(name)
    schema = Config.model_json_schema()
    schema["properties"]["extends"] = {
        "type": "string",
        "description": "A YAML file to build on, relative to this one.",
    }
    choices = []
    for name in model_names():
        options = _networks[name].schema.model_json_schema()
        schema["$defs"].update(options.pop("$defs", {}))
        options["properties"]["name"] = {"const": name}
        choices.append(options)
    schema["$defs"]["ModelConfig"] = {"anyOf": choices}
    for section in (schema, *schema["$defs"].values(), *choices):
        section.pop("required", None)
    return schema


def create_model(name: str, **options: Any) -> ImageNetwork:
    """Creates a network with initial weights, drawn from torch's default generator.

    Args:
        name: a registered name: "kpac_2level", "kpac_3level", "kpac_dual", or your own.
        options: arguments of the network's class, such as `kpac.KPACNet`.

    Raises:
        UserError: unknown name or option, or a value of the wrong type or range.
        ValueError: the network's class sets no valid `views`.
    """
    network = _find(name)
    resolved = _resolve(name, options)
    model = cast(ImageNetwork, network.cls(**resolved, **network.fixed))
    views = tuple(getattr(model, "views", ()))
    if views[:1] != ("center",) or not set(views) <= {"center", "left", "right"}:
        raise ValueError(
            f"network '{name}': expected an attribute 'views' such as ('center',), found {views or 'none'}"
        )
    model.config = {"name": name, **resolved}
    return model


def _find(name: str) -> Network:
    for entry_point in entry_points(group="kpac.networks"):
        if entry_point.name == name and name not in _networks:
            entry_point.load()
    if name in _BASELINES:
        importlib.import_module(_BASELINES[name])
    if name not in _networks:
        raise UserError(f"model.name: no network is called '{name}'{nearest(name, model_names())}")
    return _networks[name]


def without_retired(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Drops options that earlier versions wrote and that changed no result (`RETIRED`)."""
    known = _find(name).schema.model_fields
    return {option: value for option, value in options.items() if option not in RETIRED or option in known}


def _resolve(name: str, options: dict[str, Any], sources: Iterable[Source] = ()) -> dict[str, Any]:
    for option in options.keys() - without_retired(name, options).keys():
        raise UserError(f"{place(sources, f'model.{option}')}unknown key 'model.{option}': {RETIRED[option]}")
    return validate(_find(name).schema, options, sources, under="model").model_dump()


def _schema(cls: type[nn.Module], name: str, defaults: dict[str, Any], fixed: dict[str, Any]) -> type[BaseModel]:
    """Builds a pydantic model of a network's options from its constructor's signature."""
    parameters = list(inspect.signature(cls.__init__, eval_str=True).parameters.values())[1:]
    fields: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.name in fixed or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        default = defaults.get(parameter.name, ... if parameter.default is parameter.empty else parameter.default)
        annotation = Any if parameter.annotation is parameter.empty else parameter.annotation
        fields[parameter.name] = (annotation, default)
    return create_schema(name, __base__=Section, **fields)
