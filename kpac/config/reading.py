"""Reads a checked configuration from YAML files and overrides, and writes it as YAML."""

import copy
import re
from collections.abc import Collection, Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from kpac.config.checks import Source, nearest, validate
from kpac.config.sections import Config, ModelConfig
from kpac.errors import UserError
from kpac.files import from_home


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Reads a YAML file, the files that it extends, and overrides, and checks the resulting configuration.

    Args:
        path: the YAML file. A path in `extends: other.yaml` is relative to the file that contains it.
        overrides: dotted assignments, such as `train.iterations=500`, with values in YAML. Each sets only its key.

    Raises:
        UserError: a file is missing or not YAML, a key is unknown (the message suggests the nearest valid one), or a
            value has the wrong type or range. The message names the file or the override.
    """
    files = list(_read_chain(Path(path)))
    assignments = [_parse_override(text) for text in overrides]
    merged: dict[str, Any] = {"model": {"name": ModelConfig.model_fields["name"].default}}
    for _, tree in files:
        _merge(merged, copy.deepcopy(tree))
    for keys, value in assignments:
        _assign(merged, keys, value)
    sources = files + [
        (f"override '{text}'", _nest(keys, value)) for text, (keys, value) in zip(overrides, assignments, strict=True)
    ]
    config = validate(Config, merged, sources)
    config._sources = sources
    return config


def dump_config(config: Config) -> str:
    """The configuration, defaults included, as YAML that `load_config` reads back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _read_chain(path: Path) -> Iterator[Source]:
    """Yields the files that a file extends, directly or indirectly, the most basic first; then the file itself."""
    chain: list[Source] = []
    seen: set[Path] = set()
    while True:
        if path.resolve() in seen:
            raise UserError(f"{path}: 'extends' leads back to a file that extends this one; remove one of the two")
        seen.add(path.resolve())
        tree = read_yaml(path)
        parent = tree.pop("extends", None)
        chain.append((str(path), tree))
        if parent is None:
            return reversed(chain)
        if not isinstance(parent, str):
            raise UserError(f"{path}: 'extends' should be the path of one YAML file, found {parent!r}")
        child, path = path, path.parent / from_home(parent)
        if not path.is_file():
            raise UserError(f"{child}: extends {path}: no such file{_nearest_file(path, seen)}")


def _parse_override(text: str) -> tuple[list[str], Any]:
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"\w+(\.\w+)*", key):
        raise UserError(f"override '{text}': expected key=value, such as train.iterations=500")
    try:
        return key.split("."), yaml.load(value, Loader=_Loader)
    except (yaml.YAMLError, ValueError):
        raise UserError(f"override '{text}': the value is not YAML") from None


def _assign(tree: dict[str, Any], keys: list[str], value: Any) -> None:
    """Sets one dotted key in a tree of values."""
    for key in keys[:-1]:
        if not isinstance(tree.get(key), dict):
            tree[key] = {}
        tree = tree[key]
    tree[keys[-1]] = value


def _nest(keys: list[str], value: Any) -> dict[str, Any]:
    for key in reversed(keys):
        value = {key: value}
    return value


def _merge(base: dict[str, Any], update: dict[str, Any], at: tuple[str, ...] = ()) -> None:
    """Merges the values of a file into those of the file that it extends: sections merge, other values replace."""
    for key, value in update.items():
        old = base.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and not _replaces((*at, key), old, value):
            _merge(old, value, (*at, key))
        else:
            base[key] = value


def _replaces(at: tuple[str, ...], old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether a mapping replaces that of the extended file: losses, or the options of another network or schedule."""
    if at == ("train", "losses"):
        return True
    return at in (("model",), ("train", "schedule")) and "name" in new and new["name"] != old.get("name")


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads 1e-4 as a number, as YAML 1.2 does, and refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                continue  # an error is raised for it below
            if key in seen:
                problem = f"the key '{key}' is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads the sections of one YAML file, without checking them.

    Raises:
        UserError: no such file, or not YAML; the message names the line.
    """
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file{_nearest_file(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a YAML file ({error})") from None
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(tree, dict):
        found = "nothing" if tree is None else f"a {type(tree).__name__}"
        raise UserError(f"{path}: expected sections such as 'model:' and 'train:', found {found}")
    return tree


def _nearest_file(path: Path, but: Collection[Path] = ()) -> str:
    """Hint for a missing file: the nearest YAML file in its folder, apart from the files in `but`."""
    siblings = [str(other) for other in path.parent.glob("*.yaml") if other.resolve() not in but]
    return nearest(str(path), siblings) if siblings else ""
