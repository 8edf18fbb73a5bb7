"""Hooks for mkdocs: they add pages from files outside of docs/, and rewrite links to files outside of docs/.

The README becomes the start page. A link to a repository file without a page points to `repo_url` if mkdocs.yml sets
it, and becomes plain text otherwise.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "data/README.md": "data.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
REFERENCE = """# Python reference

What `import kpac` offers, and what plugins and scripts use.

""" + "\n\n".join(
    f"::: {name}"
    for name in (
        "kpac.Restorer",
        "kpac.create_model",
        "kpac.load_model",
        "kpac.save_model",
        "kpac.register",
        "kpac.load_config",
        "kpac.read_photograph",
        "kpac.UserError",
        "kpac.models.network.KPACNet",
        "kpac.models.kpac",
        "kpac.models.layers",
        "kpac.models.reach",
        "kpac.models.cost",
        "kpac.cpu.accelerate",
        "kpac.evaluation.evaluator",
        "kpac.evaluation.metrics",
        "kpac.evaluation.protocols",
        "kpac.config.sections",
    )
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages whose source files are outside of docs/."""
    for source, target in PAGES.items():
        files.append(File.generated(config, target, content=(ROOT / source).read_text(encoding="utf-8")))
    files.append(File.generated(config, "reference.md", content=REFERENCE))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrites relative links in the source file to links relative to the page on the site."""
    target = page.file.src_uri
    source = next((source for source, made in PAGES.items() if made == target), f"docs/{target}")

    def rewrite(link: re.Match) -> str:
        text, address = link.groups()
        path, mark, part = address.partition("#")
        if "://" in address or not path:
            return link.group()
        place = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        place = PAGES.get(place, place)
        inside = place.removeprefix("docs/")
        if files.get_file_from_path(inside):
            return f"[{text}]({inside}{mark}{part})"
        return f"[{text}]({config.repo_url.rstrip('/')}/blob/main/{place})" if config.repo_url else text

    return re.sub(r"\[([^\]]*)\]\(([^)\s]+)\)", rewrite, markdown)
