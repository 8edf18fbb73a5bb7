"""Pairs inputs with their targets, or with their other views, by file names.

Three rules are tried in this order, on all images of two folders together. The first that pairs every image is used,
otherwise the one that pairs the most:

1. DPDD's published list, if all names are in it.
2. Equal names.
3. Names that become equal without the words common to one side only: `12_blur` and `12`, `scene3_input_01` and
   `scene3_gt_01`.

Images are paired by sorted order only if the caller asks for it.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from kpac.data.published import published_pairs
from kpac.errors import UserError

SHOWN = 3  # names of each side in a message
WAYS_OUT = "give both the same names, or pair them by sorted order with data.pair_by_order: true"
COMMON = 0.9  # a word is common to one side if this share of its names have it: allows for stray files
# A number, a word of one case or capitalized, or a run of other letters; separators are not words.
WORD = re.compile(r"\d+|[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W\d_A-Za-z]+")


@dataclass(frozen=True)
class Pairs:
    """A pairing of images with their partners."""

    images: Sequence[Path]  # the images to pair
    partners: Sequence[Path | None]  # the partner of each image, or None
    expected: Sequence[str | None]  # name that each image's partner has or should have; None if the rule gives none
    left_over: Sequence[Path]  # candidates that are no image's partner
    rule: str = ""  # the rule of the pairing, as a phrase; empty for equal names and the published list

    def require_all(self, what: str, folder: Path) -> list[Path]:
        """Returns the partners, one for each image.

        Args:
            what: "target", or the name of a view.
            folder: the folder where the partners should lie.

        Raises:
            UserError: an image has no partner; the message names it.
        """
        for path, partner, name in zip(self.images, self.partners, self.expected, strict=True):
            if partner is None:
                missing = sum(other is None for other in self.partners)
                count = f"; {missing} of {len(self.images)} images have none" if missing > 1 else ""
                named = f" named {name}{path.suffix}" if name else ""
                how = "" if name else f" ({self.rule})"
                raise UserError(f"{folder}: no {what}{named} for {path}{how}{count}")
        return [partner for partner in self.partners if partner]


def name_of(path: Path) -> str:
    """The name of an image for comparisons: without suffix, in Unicode's composed form (NFC).

    macOS stores decomposed names, other systems composed ones, so the same name may differ in its bytes.
    """
    return unicodedata.normalize("NFC", path.stem)


def same_names(images: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Images with the same name, such as a.jpg and a.png: pairs of the first one and each of the others."""
    first: dict[str, Path] = {}
    return [(first[name_of(path)], path) for path in images if first.setdefault(name_of(path), path) != path]


def pair(images: Sequence[Path], others: Sequence[Path], by_order: bool = False) -> Pairs:
    """Pairs each image with one of the candidates.

    Args:
        images: the images to pair, with distinct names.
        others: the candidates, in any number, with distinct names.
        by_order: pairs by the sorted order of file names instead.

    Raises:
        UserError: no rule pairs any image, two pairings are equally good, or the numbers differ with `by_order`.
    """
    if by_order:
        return _by_order(images, others)
    found = []
    for rule in (_by_published_list, _by_equal_names, _by_words):
        pairs = rule(images, others)
        if pairs and all(pairs.partners):
            return pairs
        if pairs and any(pairs.partners):
            found.append(pairs)
    if not found:
        raise UserError(
            f"{_sides(images, others)}: the names do not show which images belong together; {WAYS_OUT}", "pair_by_order"
        )
    return max(found, key=lambda pairs: sum(partner is not None for partner in pairs.partners))


def _by_order(images: Sequence[Path], others: Sequence[Path]) -> Pairs:
    images_, others_ = sorted(images), sorted(others)
    if len(images) != len(others):
        raise UserError(f"{_sides(images, others)}: pairing by sorted order needs equal numbers of images")
    partner = dict(zip(images_, others_, strict=True))
    return Pairs(images, [partner[path] for path in images], [None for _ in images], [], "names pair by sorted order")


def _by_equal_names(images: Sequence[Path], others: Sequence[Path]) -> Pairs:
    return _by_expected_names(images, others, [name_of(path) for path in images])


def _by_published_list(images: Sequence[Path], others: Sequence[Path]) -> Pairs | None:
    listed = {source: target for pairs in published_pairs().values() for source, target in pairs.items()}
    names = [name_of(path) for path in images]
    if not all(name in listed for name in names):
        return None
    return _by_expected_names(images, others, [listed[name] for name in names])


def _by_expected_names(images: Sequence[Path], others: Sequence[Path], expected: Sequence[str]) -> Pairs:
    there = {name_of(path): path for path in others}
    left_over = [path for name, path in there.items() if name not in set(expected)]
    return Pairs(images, [there.get(name) for name in expected], expected, left_over)


def _by_words(images: Sequence[Path], others: Sequence[Path]) -> Pairs | None:
    """Pairs names that are equal after removing the words that mark their side.

    A mark is a word that is common in the names of one side but not in the names of the other. Numbers are used as
    marks only if words alone do not pair all images: `s1_f2` and `s1_f22`. If a word occurs twice in a name, either may
    be the mark; both are tried.

    Raises:
        UserError: two such pairings of all images contradict each other.
    """
    best: Pairs | None = None
    sides = [[WORD.findall(name_of(path)) for path in paths] for paths in (images, others)]
    marks = _marks(sides)
    for numbers in ((False, False), (True, True), (True, False), (False, True)):
        chosen = [
            {word for word in side if also or not word.isdigit()} for side, also in zip(marks, numbers, strict=True)
        ]
        complete = None
        for backwards in product((True, False), repeat=2):
            keys = [
                [_without(words, mark, back) for words in side]
                for side, mark, back in zip(sides, chosen, backwards, strict=True)
            ]
            found = _by_keys(images, others, keys)
            if found is None or not all(found.partners):
                best = best or found
                continue
            if complete and complete.partners != found.partners:
                raise UserError(f"{_sides(images, others)}: the names pair in two ways; {WAYS_OUT}", "pair_by_order")
            complete = found
        if complete:
            return complete
    return best


def _marks(sides: Sequence[Sequence[Sequence[str]]]) -> list[set[str]]:
    """For each side, the words that most of its names have and most names of the other side do not."""
    common = []
    for names in sides:
        counts = Counter(word for words in names for word in set(words))
        common.append({word for word, count in counts.items() if count > COMMON * len(names)})
    return [common[0] - common[1], common[1] - common[0]]


def _without(words: Sequence[str], marks: set[str], backwards: bool) -> tuple[str, ...]:
    """The words without one occurrence of each mark: the last one if `backwards`, otherwise the first."""
    left, kept = set(marks), []
    for word in reversed(words) if backwards else words:
        if word in left:
            left.remove(word)
        else:
            kept.append(word)
    return tuple(reversed(kept) if backwards else kept)


def _by_keys(images: Sequence[Path], others: Sequence[Path], keys: Sequence[Sequence[tuple[str, ...]]]) -> Pairs | None:
    """Pairs equal keys; None if a key is empty or repeated, or if fewer than half of the images pair."""
    there = dict(zip(keys[1], others, strict=True))
    if not all(keys[0]) or len(set(keys[0])) < len(images) or len(there) < len(others):
        return None
    partners = [there.get(key) for key in keys[0]]
    first = next(((path, partner) for path, partner in zip(images, partners, strict=True) if partner), None)
    if first is None or 2 * sum(partner is not None for partner in partners) < len(images):
        return None
    left_over = [path for key, path in there.items() if key not in set(keys[0])]
    rule = f"names pair as {name_of(first[0])} and {name_of(first[1])}"
    return Pairs(images, partners, [None for _ in images], left_over, rule)


def _sides(images: Sequence[Path], others: Sequence[Path]) -> str:
    return " and ".join(f"{side[0].parent} ({len(side)}: {', '.join(_shown(side))})" for side in (images, others))


def _shown(side: Sequence[Path]) -> Iterator[str]:
    names = sorted(path.name for path in side)
    yield from names[:SHOWN]
    if len(names) > SHOWN:
        yield "..."
