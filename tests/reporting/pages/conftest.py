"""Pages of small results, and a browser to look at them."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from kpac.cli import main
from kpac.images import from_float, write_pixels
from tests.conftest import texture

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--force-color-profile=srgb"),
)
HOSTILE = "<img src=x onerror=document.title='owned'>"
QUOTED = """it's "quoted" $(touch here) ü 日本"""
SCENES = ("plain", HOSTILE, QUOTED)
SIZE = (90, 130)


@pytest.fixture(scope="session")
def browser():
    """Chromium without a window; tests are skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"needs a browser: none of {', '.join(BROWSERS)} is installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """A page that lists in `page.problems` what its console, its scripts and its network complain about."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    context.set_default_timeout(15_000)
    page = context.new_page()
    page.problems = []
    page.on("console", lambda message: page.problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("requestfailed", lambda request: page.problems.append(f"{request.url} failed"))
    page.on("request", lambda r: page.problems.append(f"{r.url} is elsewhere") if is_elsewhere(r.url) else None)
    yield page
    context.close()


def is_elsewhere(url: str) -> bool:
    """Whether a page that should stand alone asks another machine."""
    return not url.startswith(("file:", "blob:", "data:", "http://127.0.0.1:"))


def write_set(folder: Path, names=SCENES, size=SIZE, bit_depth: int = 8) -> Path:
    """A data set in the layout "paired": targets, and inputs that are averages of neighbours."""
    for number, name in enumerate(names):
        sharp = texture(*size, seed=number)
        blurred = np.mean([np.roll(sharp, shift, axis) for shift in (-2, 0, 2) for axis in (0, 1)], axis=0)
        write_pixels(folder / "target" / f"{name}.png", from_float(sharp, bit_depth))
        write_pixels(folder / "input" / f"{name}.png", from_float(blurred, bit_depth))
    return folder


def write_outputs(folder: Path, data: Path, share: float) -> Path:
    """Outputs of a method: so much of the target, the rest input."""
    from kpac.images import bits, read_pixels, to_float

    for path in sorted((data / "target").iterdir()):
        target, blurred = (read_pixels(data / role / path.name) for role in ("target", "input"))
        mixed = share * to_float(target) + (1 - share) * to_float(blurred)
        write_pixels(folder / path.name, from_float(mixed, bits(target)))
    return folder


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """A folder with a data set, the outputs of two methods, and their results."""
    folder = tmp_path_factory.mktemp("pages")
    data = write_set(folder / "set")
    images = []
    for label, share in (("half", 0.5), ("most", 0.9)):
        images += ["--images", f"{label}={write_outputs(folder / label, data, share)}"]
    assert main(["evaluate", *images, "--data", str(data), "--output", str(folder / "results")]) == 0
    return folder


@pytest.fixture(scope="session")
def view(made) -> Path:
    """The pages of these results."""
    assert main(["view", str(made / "results"), "--output", str(made / "view")]) == 0
    return made / "view"
