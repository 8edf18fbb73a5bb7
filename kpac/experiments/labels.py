"""Axis titles and point labels for sweep figures, and whether the points have an order."""

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

Axes = Mapping[str, Sequence[Any]]  # dotted key -> its values


def is_ordered(axes: Axes) -> bool:
    """Whether the settings have an order, so that a line may join their points in a figure.

    True for a single axis if its values, or the lengths of its lists, increase or decrease monotonically.
    """
    if len(axes) != 1:
        return False
    (values,) = axes.values()
    if all(isinstance(value, list) for value in values):
        sizes = [len(value) for value in values]
    elif all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        sizes = list(values)
    else:
        return False
    pairs = list(itertools.pairwise(sizes))
    return all(one < other for one, other in pairs) or all(one > other for one, other in pairs)


def title(axes: Axes) -> str:
    """Title of the figure's axis: the varied quantity; "" if the labels name it."""
    if len(axes) == 1:
        return _words(next(iter(axes)))
    return _common_word(axes) if _are_switches(axes) else ""


def label(axes: Axes, point: Mapping[str, Any]) -> str:
    """Label of one setting: "2" for a single axis, "scale + shape" for switches, else each value with its name.

    Args:
        axes: all axes of the sweep.
        point: dotted key -> value in this setting.
    """
    if len(axes) == 1:
        (value,) = point.values()
        return _text(value)
    if _are_switches(axes):
        end = _common_word(axes)
        on = [_words(key).removesuffix(end).strip() for key, value in point.items() if value]
        return " + ".join(on) or "none"
    return ", ".join(
        f"{'' if value else 'no '}{_words(key)}" if isinstance(value, bool) else f"{_words(key)} {_text(value)}"
        for key, value in point.items()
    )


def _are_switches(axes: Axes) -> bool:
    return len(axes) > 1 and all(isinstance(value, bool) for values in axes.values() for value in values)


def _common_word(axes: Axes) -> str:
    """The last word of all keys, such as "attention" of scale_attention and shape_attention; "" if they differ."""
    ends = {_words(key).rpartition(" ")[2] for key in axes}
    return ends.pop() if len(ends) == 1 else ""


def _words(key: str) -> str:
    return key.rpartition(".")[2].replace("_", " ")


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return value if isinstance(value, str) else json.dumps(value)
