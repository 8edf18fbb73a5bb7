"""Assigns the images of one folder to views and targets by a word in their names: `001_left` and `001_right`."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from kpac.data.pairing import WORD, name_of

ROLES = ("center", "left", "right", "target")
WORDS = {
    "center": "center centre c input blur blurred blurry defocus defocused lq source",
    "left": "left l",
    "right": "right r",
    "target": "target gt sharp hq aif",
}
ROLE_OF = {word: role for role, words in WORDS.items() for word in words.split()}


def images_by_role(images: Sequence[Path]) -> dict[str, list[Path]]:
    """Sorts images by role; each role keeps the order of `images`.

    Images belong to one scene if their names are equal without the last word that stands for a role. An image whose
    name has no such word is the input. It is the target instead if all marked images of the folder are inputs.

    Returns:
        Role -> images. All images are under "center" unless at least half of the scenes have the same set of two or
        more roles.
    """
    together = {"center": list(images)}
    scenes: dict[tuple[str, ...], list[tuple[str | None, Path]]] = defaultdict(list)
    for path in images:
        role, rest = _role_of(path)
        scenes[rest].append((role, path))
    marked = {role for members in scenes.values() for role, _ in members if role}
    unmarked = "target" if marked == {"center"} else "center"
    named = {rest: [(role or unmarked, path) for role, path in members] for rest, members in scenes.items()}
    roles = [sorted(role for role, _ in members) for members in named.values()]
    if not roles or any(len(set(members)) < len(members) for members in roles):
        return together
    usual = max(roles, key=roles.count)
    if len(usual) < 2 or 2 * roles.count(usual) < len(roles):
        return together
    role_of = {path: role for members in named.values() for role, path in members}
    return {role: found for role in ROLES if (found := [path for path in images if role_of[path] == role])}


def _role_of(path: Path) -> tuple[str | None, tuple[str, ...]]:
    """The role in a file's name, or None; and the other words of the name."""
    words = WORD.findall(name_of(path))
    for place in reversed(range(len(words))):
        role = ROLE_OF.get(words[place].lower())
        if role:
            return role, (*words[:place], *words[place + 1 :])
    return None, tuple(words)
