"""What the documents point at is there."""

import ast
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import kpac
from kpac.cli import make_parser

ROOT = Path(__file__).parents[1]
DOCUMENTS = [
    ROOT / "README.md",
    *sorted(ROOT.glob("docs/*.md")),
    ROOT / "data/README.md",
    ROOT / "checkpoints/README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
]
LINK = r"\]\(([^)\s]+)\)"


def code_of_readme(line: str) -> str:
    """The README's Python example that has a line."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (code,) = (block for block in blocks if line in block.splitlines())
    return code


def anchors(document: Path) -> set[str]:
    """The names of a document's sections, as GitHub makes them."""
    titles = re.findall(r"^#+ +(.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    dead = []
    for link in re.findall(LINK, document.read_text()):
        path, _, section = link.partition("#")
        target = document.parent / path if path else document
        if "://" not in link and not (target.exists() and (not section or section in anchors(target))):
            dead.append(link)
    assert dead == []


def commands(document: Path) -> list[str]:
    """What follows `kpac` in every command of a document: in indented and fenced blocks, and after launchers."""
    text = document.read_text()
    fenced = "\n".join(re.findall(r"^```(?:sh|bash|console)?\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    lines = re.findall(r"^ {4,}(.*)$", text, re.MULTILINE) + fenced.splitlines()
    found = [re.fullmatch(r"(?:\$ )?(?:[A-Z_]+=\S+ )*kpac (.*)", line) for line in lines]
    launched = [re.search(r"torchrun .*scripts/(train|evaluate)\.py (.*)", line) for line in lines]
    return [match[1] for match in found if match] + [f"{match[1]} {match[2]}" for match in launched if match]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_are_ones_that_the_command_line_knows(document):
    for line in commands(document):
        parsed = make_parser().parse_args(shlex.split(line, comments=True))
        assert callable(parsed.run)


def test_commands_are_found():
    assert len(commands(ROOT / "README.md")) > 10
    assert any(line.startswith("train my_dpdd.yaml") for line in commands(ROOT / "README.md"))


def test_diagrams_are_of_the_network_as_it_is():
    script = runpy.run_path(str(ROOT / "scripts/draw_network.py"))
    for file, text in script["drawings"]("kpac_2level").items():
        assert (ROOT / "docs/images" / file).read_text() == text, (
            f"draw it again: python scripts/draw_network.py ({file})"
        )
    three = script["drawings"]("kpac_3level")["network.svg"]
    assert three.count(">encoder, ") == 4
    assert "stride 2: 96" in three


def test_citation_is_that_of_the_readme():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())["preferred-citation"]
    readme = (ROOT / "README.md").read_text()
    for words in (citation["title"], str(citation["year"]), citation["collection-title"]):
        assert f"{{{words}}}" in readme
    names = [f"{author['family-names']}, {author['given-names']}" for author in citation["authors"]]
    assert " and ".join(names) in readme


def test_names_that_editors_see_are_those_that_the_package_has():
    tree = ast.parse((ROOT / "kpac/__init__.py").read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {name.asname: node.module for node in block.body for name in node.names}
    assert seen == kpac._HOMES
    assert all(getattr(kpac, name) for name in seen)


@pytest.mark.slow
def test_site_of_the_documentation_is_built(tmp_path):
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert "KPACBlock" in (tmp_path / "site/reference/index.html").read_text()
    assert 'href="restore/' in (tmp_path / "site/index.html").read_text()


def test_make_targets_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE):
        assert f"\n{target}:" in makefile
