"""A browser to look at pages with, for the tests that are marked `browser`."""

import shutil

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--force-color-profile=srgb"),
)


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
    context.set_default_timeout(60_000)  # of a machine that is busy
    page = context.new_page()
    page.problems = []
    page.on("console", lambda message: page.problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.problems.append(str(error)))
    page.on("requestfailed", lambda r: None if was_left(r) else page.problems.append(f"{r.url} failed: {r.failure}"))
    page.on("request", lambda r: page.problems.append(f"{r.url} is elsewhere") if is_elsewhere(r.url) else None)
    yield page
    context.close()


def was_left(request) -> bool:
    """Whether the page itself gave a request up: an image on its way when one goes to another page, or a stream."""
    return request.failure == "net::ERR_ABORTED"


def is_elsewhere(url: str) -> bool:
    """Whether a page that should stand alone asks another machine."""
    return not url.startswith(("file:", "blob:", "data:", "http://127.0.0.1:"))
