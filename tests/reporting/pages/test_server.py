"""`kpac view --serve`: at loopback, scene by scene, and thousands of them."""

import http.client
import re
import sys
import threading
import urllib.request

import pytest

from kpac.reporting.pages.view import Pages
from tests.interrupts import interrupted_server
from tests.reporting.pages.conftest import SCENES, write_outputs, write_set


@pytest.fixture
def served(made, tmp_path):
    """Serves the results; gives the address and the folder."""
    yield from serve(Pages([made / "results"]), tmp_path / "served")


def serve(view, folder):
    view.write(folder, scenes=False)
    addresses, there = [], threading.Event()
    ready = lambda address: (addresses.append(address), there.set())  # noqa: E731
    threading.Thread(target=view.serve, args=(folder, 0, ready), daemon=True).start()
    assert there.wait(10)
    yield addresses[0], folder


def test_scenes_are_made_when_they_are_looked_at(served):
    address, folder = served
    assert not (folder / "images").exists()
    script = urllib.request.urlopen(f"{address}images/2/input.js").read()
    assert script.startswith(b'kpac.receive("images/2/input"')
    assert {path.name for path in (folder / "images").iterdir()} == {"2"}


def test_only_loopback_names_are_answered(served):
    address, folder = served
    port = int(address.rstrip("/").rpartition(":")[2])
    for host, expected in ((f"localhost:{port}", 200), ("evil.example", 403), (f"evil.example:{port}", 403)):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/index.html", headers={"Host": host})
        assert connection.getresponse().status == expected
    for path in ("/../../etc/passwd", "/images/99/input.js", "/images/1/..%2f..%2finput.js"):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", path)
        assert connection.getresponse().status == 404
    assert folder.is_dir()


def test_ctrl_c_ends_it_in_one_line(made, tmp_path):
    command = [sys.executable, "-m", "kpac", "view", str(made / "results"), "--serve", "--port", "0"]
    status, lines = interrupted_server(command, tmp_path)
    assert status == 130
    assert re.fullmatch(r"open http://127\.0\.0\.1:\d+/ in a browser; Ctrl-C stops the server", lines[0])
    assert lines[1:] == ["", "kpac: interrupted"]
    assert list(tmp_path.glob("kpac-view-*")) == []


@pytest.mark.browser
def test_a_served_page_works_as_one_from_disk(served, page):
    address, _ = served
    page.goto(address)
    page.wait_for_function("document.body?.dataset.ready")
    page.locator("#scene-table tbody a").first.click()
    page.wait_for_function("document.body?.dataset.ready > 0")
    assert page.text_content("#name") in SCENES
    assert page.problems == []


@pytest.mark.browser
def test_rows_of_thousands_of_scenes_are_made_as_one_scrolls(tmp_path, page):
    from kpac.cli import main

    data = write_set(tmp_path / "set", ["0000"], size=(16, 24))
    outputs = write_outputs(tmp_path / "method", data, 0.5)
    arguments = ["evaluate", "--images", str(outputs), "--data", str(data), "--output", str(tmp_path / "results")]
    assert main(arguments) == 0
    multiply(tmp_path, 3000)
    for address, folder in serve(Pages([tmp_path / "results"]), tmp_path / "served"):
        page.goto(address)
        page.wait_for_function("document.body?.dataset.ready")
        rows = page.locator("#scene-table tbody tr")
        first = rows.count()
        assert first <= 100
        assert page.text_content("#count") == "3000 scenes"
        page.evaluate("document.querySelector('.scroll.scenes').scrollTo(0, 1e6)")
        page.wait_for_function(f"document.querySelectorAll('#scene-table tbody tr').length > {first}")
        page.fill("#filter-name", "2999")
        page.wait_for_function("document.querySelectorAll('#scene-table tbody tr').length === 1")
        made = {path.name for path in (folder / "images").iterdir()}
        assert len(made) < 400


def multiply(folder, count):
    """The same scene under so many names."""
    import json

    file = next((folder / "results").rglob("results.json"))
    results = json.loads(file.read_text(encoding="utf-8"))
    (record,) = results["images"]
    results["images"] = [{**record, "name": f"{number:04}"} for number in range(count)]
    file.write_text(json.dumps(results), encoding="utf-8")
    for place in (folder / "set" / "input", folder / "set" / "target", folder / "method"):
        for number in range(1, count):
            (place / f"{number:04}.png").hardlink_to(place / "0000.png")
