"""Base class of the configuration's sections, and one-line messages about mistakes in them."""

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic_core import ErrorDetails

from kpac.errors import UserError

SectionType = TypeVar("SectionType", bound=BaseModel)
Source = tuple[str, dict[str, Any]]  # name of the file or override, and the values that it sets


class Section(BaseModel):
    """Base class of sections of the configuration: keys are typed and documented, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuses booleans for numbers: pydantic accepts true as 1, so `iterations: true` would train for one step."""
        types = _types(cls.model_fields[str(info.field_name)].annotation)
        values = value if isinstance(value, (list, tuple)) else [value]
        if types & {int, float} and bool not in types and any(isinstance(each, bool) for each in values):
            raise ValueError("should be a number")
        return value


def validate(
    schema: type[SectionType], values: dict[str, Any], sources: Iterable[Source] = (), under: str = ""
) -> SectionType:
    """Checks values against a schema, and turns pydantic's errors into a one-line message.

    Args:
        schema: the section's class.
        values: values to check.
        sources: files and overrides that the values come from, those of highest precedence last; errors name them.
        under: dotted prefix of the section, for messages.

    Raises:
        UserError: names the first problem, and the number of further ones.
    """
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        # Unknown keys first: a mistyped key also makes the right key missing.
        problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    location, problem = _sentence(schema, problems[0])
    key = ".".join([*([under] if under else []), *map(str, location)])
    prefix = key[: -len(str(location[-1]))] if location else ""
    where = place(sources, key, missing=problems[0]["type"] == "missing")
    keys = [list(other["loc"]) for other in problems]
    others = {".".join(map(str, other)) for other in keys if other != location[: len(other)]}
    more = f" (and {len(others)} more)" if others else ""
    raise UserError(where + problem.replace("{key}", key).replace("{prefix}", prefix) + more)


def place(sources: Iterable[Source], key: str, missing: bool = False) -> str:
    """Start of a message, naming the source that set a key, or the section that lacks it; empty if not known."""
    sources = list(reversed(list(sources)))
    about = key.rpartition(".")[0] if missing else key
    said = [name for name, tree in sources if about and _has(tree, about)]
    files = [name for name, _ in sources if missing and not name.startswith("override ")]
    return next((f"{name}: " for name in said + files), "")


def nearest(word: str, choices: Iterable[str], prefix: str = "") -> str:
    """End of a message about a mistyped word: "; did you mean 'x'?" if a choice is near, else all choices.

    Args:
        word: the mistyped word.
        choices: valid words.
        prefix: text to put before the nearest choice.
    """
    choices = sorted(choices)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    return f"; did you mean '{prefix}{close[0]}'?" if close else f"; expected one of: {', '.join(choices)}"


def _sentence(schema: type[BaseModel], problem: ErrorDetails) -> tuple[list[str | int], str]:
    """Location of a pydantic error, and a sentence with the placeholders {key} and {prefix}."""
    location = list(problem["loc"])
    if problem["type"] == "extra_forbidden":
        return (
            location,
            f"unknown key '{{key}}'{nearest(str(location[-1]), _fields(schema, location[:-1]), '{prefix}')}",
        )
    if problem["type"] == "missing":
        return location, "the key '{key}' is missing, and has no default"
    if problem["type"] == "value_error" and isinstance(problem["input"], dict):  # from a whole section
        return location, problem["msg"].removeprefix("Value error, ").replace("{prefix}", "{key}." if location else "")
    found = "nothing" if problem["input"] is None else repr(problem["input"])
    return location, f"'{{key}}' {_expectation(problem)}, found {found}"


def _expectation(problem: ErrorDetails) -> str:
    """Describes the expected value, without terms of pydantic or Python."""
    kind, limits = problem["type"], problem.get("ctx", {})
    if kind in ("model_type", "dict_type"):
        return "should be a section of keys and values"
    if kind == "path_type":
        return "should be a path"
    if kind == "too_short":
        return f"should have at least {limits['min_length']} item{'s' * (limits['min_length'] > 1)}"
    expected = re.sub(r"^(Value error, |Input |\w+ (?=should ))", "", problem["msg"])
    return re.sub(r"a valid (?=list|tuple|string)", "a ", expected).replace("a tuple", "a list")


def _types(annotation: Any) -> set[Any]:
    """The basic types in an annotation: int and str for list[int] | str."""
    parts = get_args(annotation)
    return {kind for part in parts for kind in _types(part)} if parts else {annotation}


def _fields(schema: Any, location: Sequence[str | int]) -> Iterable[str]:
    """The valid keys of the section at a location; a section may be a pydantic model or a typed dictionary."""
    for part in location:
        hints = get_type_hints(schema)
        if part not in hints:  # an index or a user's name: `schema` is the class of the entries already
            continue
        choices = (*get_args(hints[part]), hints[part])
        schema = next((choice for choice in choices if hasattr(choice, "__annotations__")), schema)
    return schema.model_fields if issubclass(schema, BaseModel) else get_type_hints(schema)


def _has(tree: Any, key: str) -> bool:
    """Whether a tree of values sets a dotted key."""
    for part in key.split("."):
        if isinstance(tree, dict) and part in tree:
            tree = tree[part]
        else:
            return isinstance(tree, list)
    return True
