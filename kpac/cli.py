"""The `kpac` command; turns users' mistakes and interrupts into one-line messages and exit statuses."""

import argparse
import io
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kpac import __version__
from kpac.commands import (
    config,
    data,
    demo,
    env,
    evaluation,
    experiments,
    export,
    inspect,
    models,
    protocols,
    restore,
    training,
    view,
    weights,
)
from kpac.commands.arguments import Parser
from kpac.commands.remedies import explain
from kpac.errors import Stopped, UserError
from kpac.files import from_home
from kpac.signals import ENDING, drop_closed_terminal, is_heeded


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        The exit status: 0, or the command's own status (1 if it found a problem); 2 for a user's mistake, reported in
        one line on stderr; 130 after Ctrl-C, and 128 + its number after another signal.
    """
    logging.getLogger("kpac").handlers = [_Notices()]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may be invalid text; stderr does this by default
    try:
        with _cleaned_up_after_signals():
            options = _parse(arguments)
            return options.run(options) or 0
    except UserError as error:
        print(f"kpac: {explain(error)}", file=sys.stderr)
        return error.status
    except Stopped as stop:
        print(f"\nkpac: {explain(stop)}", file=sys.stderr)
        return stop.status
    except KeyboardInterrupt:
        print("\nkpac: interrupted", file=sys.stderr)
        return 130
    except _Terminated as end:
        print(f"\nkpac: stopped by {signal.Signals(end.number).name}", file=sys.stderr)
        return 128 + end.number
    except BrokenPipeError:
        sys.stderr.close()
        return 141


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser()
    options, rest = parser.parse_known_args(arguments)
    if "overrides" in options and all(re.match(r"\w+(\.\w+)*=", word) for word in rest):
        options.overrides += rest  # argparse collects overrides only up to the first flag
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    for name, value in vars(options).items():
        setattr(options, name, _from_home(value))
    return options


def _from_home(value: Any) -> Any:
    """Expands "~" in paths; a shell does not expand it in quotes or after an equals sign."""
    if isinstance(value, Path):
        return from_home(value)
    return [_from_home(entry) for entry in value] if isinstance(value, list) else value


class _Terminated(SystemExit):
    """Raised when a signal of `kpac.signals.ENDING` arrives."""

    def __init__(self, number: int):
        super().__init__(128 + number)
        self.number = number


@contextmanager
def _cleaned_up_after_signals() -> Iterator[None]:
    """Context in which SIGTERM, SIGHUP and SIGUSR1 raise an exception, so that partial files are removed.

    A second signal has its default effect. Commands that handle signals themselves, such as training, replace these
    handlers.
    """

    def leave(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        drop_closed_terminal()
        raise _Terminated(number)

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    earlier = {number: signal.signal(number, leave) for number in ENDING if is_heeded(number)}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


class _Notices(logging.Handler):
    """Prints the library's log messages to stderr, one line each.

    Under torchrun only rank 0 prints warnings, since all ranks log the same ones. Exceptions: each rank prints errors,
    and warnings about the image files that it reads.
    """

    def emit(self, record: logging.LogRecord) -> None:
        is_first = int(os.environ.get("RANK", "0")) == 0
        if not is_first and record.levelno < logging.ERROR and not record.name.startswith("kpac.images"):
            return
        if isinstance(record.args, tuple):
            record.args = tuple(explain(value) if isinstance(value, UserError) else value for value in record.args)
        print(f"kpac: {record.getMessage()}", file=sys.stderr)


def make_parser() -> argparse.ArgumentParser:
    """Makes the parser of the whole command line."""
    parser = Parser(
        prog="kpac",
        description="Defocus deblurring with kernel-sharing parallel atrous convolutions (KPAC, ICCV 2021).",
    )
    parser.add_argument("--version", action="version", version=f"kpac {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    modules = (
        restore,
        weights,
        training,
        evaluation,
        protocols,
        experiments,
        view,
        demo,
        export,
        inspect,
        models,
        data,
        config,
        env,
    )
    for module in modules:
        module.add(commands)
    return parser
