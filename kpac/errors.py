"""The one exception that a user's mistake raises."""


class UserError(Exception):
    """Something outside the program is wrong: a path, a key, a file, a size.

    The message is one line that names the file, the key or the tensor, says what was expected and what was found, and
    what to do next. The command line prints it without a traceback and exits with status 2.
    """
