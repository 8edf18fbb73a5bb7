"""Ctrl-C for commands that serve pages."""

import os
import signal
import subprocess
from pathlib import Path


def interrupted_server(command: list[str], temporary: Path) -> tuple[int, list[str]]:
    """Runs a command until it tells its address, and interrupts it as Ctrl-C in a terminal does.

    Args:
        command: what to run.
        temporary: its folder for temporary files.

    Returns:
        Its exit status, and the lines that it wrote to stdout and stderr.
    """
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored in the background jobs of a shell
    ) as run:
        assert run.stdout
        lines = []
        for line in run.stdout:  # ends with the command, whatever it says
            lines.append(line.rstrip("\n"))
            if line.startswith("open http"):
                os.killpg(run.pid, signal.SIGINT)
    return run.returncode, lines
