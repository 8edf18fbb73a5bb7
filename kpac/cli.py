"""The `kpac` command: mistakes and interrupts become one line and an exit status."""

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
from kpac.errors import Stopped, UserError
from kpac.files import from_home
from kpac.signals import ENDING, drop_closed_terminal, is_heeded


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        The exit status: 0, or what the command gives (1 when it found something wrong); 2 for a user's mistake (one
        line on stderr), 130 when interrupted, 128 + its number after another signal.
    """
    logging.getLogger("kpac").handlers = [_Notices()]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name need not be text; stderr does so by itself
    try:
        with _cleaned_up_after_signals():
            options = _parse(arguments)
            return options.run(options) or 0
    except UserError as error:
        print(f"kpac: {error}", file=sys.stderr)
        return error.status
    except Stopped as stop:
        print(f"\nkpac: {stop}", file=sys.stderr)
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
        options.overrides += rest  # argparse takes them up to the first flag only
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    for name, value in vars(options).items():
        setattr(options, name, _from_home(value))
    return options


def _from_home(value: Any) -> Any:
    """Paths with "~" expanded: a shell leaves it where it is quoted, or stands behind an equals sign."""
    if isinstance(value, Path):
        return from_home(value)
    return [_from_home(entry) for entry in value] if isinstance(value, list) else value


class _Terminated(SystemExit):
    """A signal of `kpac.signals.ENDING` came."""

    def __init__(self, number: int):
        super().__init__(128 + number)
        self.number = number


@contextmanager
def _cleaned_up_after_signals() -> Iterator[None]:
    """Inside, SIGTERM, SIGHUP and SIGUSR1 end the command as an exception does: half-written files are removed.

    A second one acts as it does by default. Commands with an answer of their own, such as training, replace this one.
    """

    def leave(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        drop_closed_terminal()
        raise _Terminated(number)

    if threading.current_thread() is not threading.main_thread():  # the only one that Python lets handle signals
        yield
        return
    earlier = {number: signal.signal(number, leave) for number in ENDING if is_heeded(number)}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


class _Notices(logging.Handler):
    """What the library has to say, as a line beside the results.

    Of torchrun's processes, all of which find the same, the first one says it. Only what an image file tells is said by
    the process that reads it, since often one reads for all.
    """

    def emit(self, record: logging.LogRecord) -> None:
        is_first = int(os.environ.get("RANK", "0")) == 0
        if not is_first and record.levelno < logging.ERROR and not record.name.startswith("kpac.images"):
            return
        print(f"kpac: {record.getMessage()}", file=sys.stderr)


def make_parser() -> argparse.ArgumentParser:
    """The whole command line."""
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
