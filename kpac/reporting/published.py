"""Published numbers, each with its source and with the protocol that made it, where that is known."""

from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from kpac.config import Section
from kpac.evaluation.metrics import METRICS
from kpac.evaluation.protocols import find_protocol
from kpac.evaluation.results import protocol_of

DATA_SET = "DPDD test"
SIZES = ((1120, 1680), (1680, 1120))  # heights and widths of its images
UNKNOWN = "unknown"  # protocol

Number = Annotated[str, Field(pattern=r"^\d+(\.\d+)?$")]  # text, with the digits in which it was published


class Scores(Section):
    """What a source says of one group of images."""

    psnr: Number | None = None
    ssim: Number | None = None
    mae: Number | None = None
    lpips: Number | None = None

    @property
    def printed(self) -> dict[str, str]:
        """Metric -> number, as it was published."""
        return {name: value for name in METRICS if (value := getattr(self, name, None)) is not None}


class PublishedRow(Scores):
    """One method on DPDD's test split, all scenes together."""

    label: str
    views: Literal["single", "dual"]
    protocol: str
    """A name of `kpac.evaluation.protocols`, or "unknown"."""
    why: str = ""
    """What is known of the protocol, or what it was inferred from."""
    networks: tuple[str, ...] = ()
    """Registered networks that the row is about."""
    source: str
    parameters: Number | None = None
    """Millions."""
    parameters_source: str | None = None
    indoor: Scores = Scores()
    outdoor: Scores = Scores()

    def compares_with(self, results: dict[str, Any]) -> bool:
        """Whether some results are on the same data, under a protocol that gives the same numbers there."""
        if self.protocol == UNKNOWN or results["data_set"] != DATA_SET:
            return False
        return find_protocol(self.protocol).gives_the_numbers_of(protocol_of(results), SIZES)

    @property
    def note(self) -> str:
        """For below a table: where the numbers are from."""
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
