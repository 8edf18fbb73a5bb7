"""The exceptions that end a command with one line.

Their text states facts. The command line adds what to do: `remedy` names an entry of
`kpac.commands.remedies.REMEDIES`, and `values` fill its placeholders.
"""

from typing import Any

from typing_extensions import Self


class UserError(Exception):
    """Something outside the program is wrong: a path, a key, a file, a size.

    The command line prints it in one line without a traceback, and exits with status 2.

    Args:
        fact: one line that names the file, the key or the tensor, and says what was expected and what was found.
        remedy: key of the command line's advice.
        values: fill the placeholders of that advice.
    """

    status = 2

    def __init__(self, fact: str, remedy: str | None = None, **values: Any):
        super().__init__(fact)
        self.remedy, self.values = remedy, values

    def within(self, place: str) -> Self:
        """The same error, prefixed with its place, such as a file or a scene."""
        return type(self)(f"{place}: {self}", self.remedy, **self.values)


class OutOfMemory(UserError):
    """Memory is exhausted while an image is restored."""


class Stopped(Exception):
    """A signal ended the work; finished parts are saved.

    Args:
        fact: one line.
        status: exit status, 128 + the signal's number.
        remedy, values: as in `UserError`.
    """

    def __init__(self, fact: str, status: int, remedy: str | None = None, **values: Any):
        super().__init__(fact)
        self.status, self.remedy, self.values = status, remedy, values
