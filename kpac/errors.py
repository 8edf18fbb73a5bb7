"""The exceptions that end a command with one line."""


class UserError(Exception):
    """Something outside the program is wrong: a path, a key, a file, a size.

    The message is one line that names the file, the key or the tensor, says what was expected and what was found, and
    what to do next. The command line prints it without a traceback and exits with status 2.
    """

    status = 2


class OutOfMemory(UserError):
    """Memory is exhausted while an image is restored.

    Args:
        what: was tried, as a phrase.
        advice: what to do.
    """

    def __init__(self, what: str, advice: str):
        super().__init__(f"{what}; {advice}")
        self.what = what


class Stopped(Exception):
    """A signal ended the work in good order: what was done is saved, and the message says how to continue.

    Args:
        message: one line.
        status: for the exit status, 128 + the signal's number.
    """

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status
