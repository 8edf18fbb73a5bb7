"""What the documents point at is there."""

import re
import shlex
from pathlib import Path

import pytest

from kpac.cli import make_parser

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    *sorted(ROOT.glob("docs/*.md")),
    ROOT / "data/README.md",
    ROOT / "checkpoints/README.md",
]


def code_of_readme(line: str) -> str:
    """The README's Python example that has a line."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (code,) = (block for block in blocks if line in block.splitlines())
    return code


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text())
    missing = [link for link in links if "://" not in link and not (document.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_are_ones_that_the_command_line_knows(document):
    for line in re.findall(r"^    kpac (.*)$", document.read_text(), re.MULTILINE):
        parsed = make_parser().parse_args(shlex.split(line, comments=True))
        assert callable(parsed.run)


def test_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE):
        assert f"\n{target}:" in makefile
