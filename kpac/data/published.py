"""Published facts about DPDD; checks whether images are the published set."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

SIZES = {"1680x1120", "1120x1680"}
BIT_DEPTH = 16
SHOWN = 3  # missing scenes that a message names


@cache
def published_pairs() -> Mapping[str, Mapping[str, str]]:
    """DPDD's published lists: split -> source name -> target name (Abuolaim and Brown, ECCV 2020)."""
    lists = json.loads((files("kpac.data") / "dpdd.json").read_text(encoding="utf-8"))["splits"]
    return {split: dict(pairs) for split, pairs in lists.items()}


@dataclass(frozen=True)
class Kinship:
    """Relation of a set of scenes to the published split of DPDD that most of their names belong to."""

    split: str  # name of the DPDD split
    scenes: int  # number of the split's scenes that are present
    missing: Collection[str]  # names of the split's scenes that are missing
    others: int  # number of scenes that do not belong to the split
    sizes: Collection[str]  # "WIDTHxHEIGHT" of the images
    bit_depths: Collection[int]  # bit depths of the images

    @property
    def is_published(self) -> bool:
        """Whether names, count, sizes and bit depth are all as published; pixels are not compared."""
        complete = not self.missing and not self.others
        return complete and set(self.sizes) <= SIZES and set(self.bit_depths) == {BIT_DEPTH}

    def text(self) -> str:
        """A phrase such as "DPDD: 38 of the test split's 76 scenes, 1024x683, 8 bits: not the published set"."""
        whole = self.scenes + len(self.missing)
        scenes = f"DPDD: {self.scenes} of the {self.split} split's {whole} scenes"
        if 0 < len(self.missing) <= SHOWN:
            scenes += f" (not {', '.join(sorted(self.missing))})"
        if self.others:
            scenes += f" and {self.others} other{'s' if self.others > 1 else ''}"
        sizes = " and ".join(sorted(self.sizes)) if len(self.sizes) < 3 else f"{len(self.sizes)} sizes"
        bits = " and ".join(map(str, sorted(self.bit_depths)))
        facts = "".join(f", {fact}" for fact in (sizes, f"{bits} bits" if bits else "") if fact)
        return f"{scenes}{facts}: {'the published split' if self.is_published else 'not the published set'}"


def kinship(names: Collection[str], sizes: Collection[str], bit_depths: Collection[int]) -> Kinship | None:
    """Finds the published split of DPDD that most of the scenes' names belong to; None if there is none.

    Args:
        names: names of the scenes' inputs.
        sizes: "WIDTHxHEIGHT" of all images.
        bit_depths: bit depths of all images.
    """
    names = set(names)
    split, pairs = max(published_pairs().items(), key=lambda item: len(names & item[1].keys()))
    common = names & pairs.keys()
    if 2 * len(common) <= len(names):
        return None
    return Kinship(split, len(common), pairs.keys() - names, len(names) - len(common), set(sizes), set(bit_depths))
