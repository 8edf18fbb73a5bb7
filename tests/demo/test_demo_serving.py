"""`kpac demo` as a command: how it begins and how it ends."""

import os
import re
import sys

import pytest

from kpac.cli import main
from tests.interrupts import interrupted_server
from tests.test_cli import fails

pytest.importorskip("gradio", reason="needs the extra kpac[demo]")


def test_ctrl_c_ends_it_in_one_line_and_leaves_no_files(weights, tmp_path):
    status, lines = interrupted_server([sys.executable, "-m", "kpac", "demo", str(weights)], tmp_path)
    assert status == 130
    (address,) = (number for number, line in enumerate(lines) if line.startswith("open http"))
    assert re.fullmatch(r"open http://127\.0\.0\.1:\d+/ in a browser; Ctrl-C stops the server", lines[address])
    assert [line for line in lines[address + 1 :] if line] == ["kpac: interrupted"]
    assert list(tmp_path.glob("kpac-demo-*")) == []


def test_busy_machine_or_proxy_does_not_stop_it(monkeypatch, weights):
    """Gradio asks its own page whether it answers: for three seconds, through a proxy if there is one."""
    import gradio

    asked = []

    def launch(self, **options: object) -> tuple[None, str, None]:
        asked.append((os.environ["no_proxy"], options["_frontend"]))
        raise KeyboardInterrupt

    monkeypatch.setattr(gradio.Blocks, "launch", launch)
    monkeypatch.setenv("no_proxy", "example.org")
    monkeypatch.setenv("NO_PROXY", "example.org")
    assert main(["demo", str(weights)]) == 130
    assert asked == [("example.org,127.0.0.1,localhost", False)]


def test_mistakes_are_one_line(capsys, tmp_path):
    assert f"{tmp_path / 'gone'}: no such file or folder" in fails(capsys, "demo", tmp_path / "gone")
    assert "expected 0 to 65535" in fails(capsys, "demo", "--port", "70000")
