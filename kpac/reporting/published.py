"""Published scores, each with its source and, if known, its protocol."""

from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from kpac.config import Section
from kpac.evaluation.metrics import METRIC_NAMES
from kpac.evaluation.protocols import find_protocol
from kpac.evaluation.results import protocol_of

DATA_SET = "DPDD test"
SIZES = ((1120, 1680), (1680, 1120))  # heights and widths of the images of DPDD
UNKNOWN = "unknown"  # name for a protocol that is not known

Number = Annotated[str, Field(pattern=r"^\d+(\.\d+)?$")]  # text, to keep the published digits


class Scores(Section):
    """Published scores of one group of images."""

    psnr: Number | None = None
    ssim: Number | None = None
    mae: Number | None = None
    lpips: Number | None = None

    @property
    def printed(self) -> dict[str, str]:
        """Metric -> number with the published digits."""
        return {name: value for name in METRIC_NAMES if (value := getattr(self, name, None)) is not None}


class PublishedRow(Scores):
    """One method on DPDD's test split, all scenes together."""

    label: str
    views: Literal["single", "dual"]
    protocol: str
    """A name of `kpac.evaluation.protocols`, or "unknown"."""
    why: str = ""
    """What is known about the protocol, or how it was inferred."""
    networks: tuple[str, ...] = ()
    """Names of the registered networks that the row describes."""
    source: str
    parameters: Number | None = None
    """Parameters, in millions."""
    parameters_source: str | None = None
    indoor: Scores = Scores()
    outdoor: Scores = Scores()

    def compares_with(self, results: dict[str, Any]) -> bool:
        """Whether results are comparable: on the same data, under a protocol that gives the same scores on it."""
        if self.protocol == UNKNOWN or results["data_set"] != DATA_SET:
            return False
        return find_protocol(self.protocol).gives_the_numbers_of(protocol_of(results), SIZES)

    @property
    def note(self) -> str:
        """Note to show below a table: the source of the numbers."""
        parameters = f"; parameters: {self.parameters_source}" if self.parameters_source else ""
        why = f" ({self.why})" if self.why else ""
        return f"{self.source}{parameters}{why}"


@cache
def published_rows() -> list[PublishedRow]:
    """The rows of published.yaml, the lowest PSNR first."""
    tree = yaml.load((files("kpac.reporting") / "published.yaml").read_text(encoding="utf-8"), yaml.BaseLoader)
    sources = tree["sources"]
    rows = []
    for entry in tree["rows"]:
        named = {key: sources[entry[key]] for key in ("source", "parameters_source") if key in entry}
        rows.append(PublishedRow.model_validate(entry | named))
    return sorted(rows, key=lambda row: float(row.psnr or 0))
