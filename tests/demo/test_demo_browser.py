"""The page of `kpac demo` in a browser."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from kpac.cli import main

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address(weights, tmp_path_factory):
    """Where `kpac demo` answers; its folder for files is emptied by it at the end."""
    pytest.importorskip("gradio", reason="needs the extra kpac[demo]")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("temporary")
    command = [sys.executable, "-m", "kpac", "demo", str(weights), "--port", str(port), "--max-megabytes", "1"]
    server = subprocess.Popen(command, env={**os.environ, "TMPDIR": str(folder)})
    url = f"http://127.0.0.1:{port}/"
    try:
        wait_for(url, server)
        yield url
    finally:
        server.terminate()
        server.wait(60)
    assert list(folder.glob("kpac-demo-*")) == []  # uploads and results are gone


def wait_for(url, server):
    for _ in range(600):
        assert server.poll() is None
        try:
            urllib.request.urlopen(url).close()
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.25)
    raise AssertionError("the page does not answer")


def give(page, address, path: Path):
    """Opens the page and drops a photograph."""
    page.goto(address)
    page.set_input_files("#photograph input[type=file]", path)
    page.locator("#photograph a").first.wait_for()  # which is there once the upload is complete


def status(page, part):
    """Waits until the status has a part, and gives the whole."""
    page.wait_for_function(f"document.querySelector('#status textarea').value.includes({part!r})", timeout=240_000)
    return page.input_value("#status textarea")


@pytest.mark.parametrize("name", ["turned", "deep"])
def test_a_photograph_is_restored_as_kpac_restore_does_it(page, address, weights, photographs, tmp_path, name):
    path = photographs[name]
    give(page, address, path)
    page.check("#attention input")
    page.click("#restore")
    told = status(page, "at the peak")
    assert ("16 bits" if name == "deep" else "70 x 100 pixels") in told
    page.get_by_text("expected dilation").first.wait_for()
    with page.expect_download() as event:
        page.click("#download")
    assert main(["restore", str(path), "-m", str(weights), "-o", str(tmp_path / "restored")]) == 0
    assert Path(event.value.path()).read_bytes() == (tmp_path / "restored" / path.name).read_bytes()
    # The page ends its stream of events by itself.
    assert page.problems == []


def test_a_broken_upload_is_told_in_one_sentence(page, address, photographs):
    give(page, address, photographs["broken"])
    page.click("#restore")
    told = status(page, "broken.png")
    assert "/" not in told.replace("and/or", "")
    assert told.endswith(".")
    page.reload()
    page.click("#restore")
    assert status(page, "Choose") == "Choose the photograph first."


def test_the_page_answers_to_loopback_alone(address):
    port = int(address.rstrip("/").rpartition(":")[2])
    addresses = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for other in addresses - {"127.0.0.1"}:
        with socket.socket() as asked:
            asked.settimeout(2)
            assert asked.connect_ex((other, port)) != 0


def test_without_a_model_it_takes_the_weights_of_the_package(monkeypatch, weights):
    pytest.importorskip("gradio", reason="needs the extra kpac[demo]")
    labels = []
    monkeypatch.setattr("kpac.weights.store.default_weights", lambda views: str(weights))
    monkeypatch.setattr("kpac.demo.page.launch", lambda model, label, *_, **__: labels.append(label))
    assert main(["demo"]) == 0
    assert labels == [f"kpac_2level, {weights}"]
