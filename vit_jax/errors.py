"""The one exception that means: the input is wrong, not the program."""


class InputError(ValueError):
    """The user's input is unusable; the message says expected, got and what to do.

    Commands print it as one line and exit with status 2. Any other exception is a bug and keeps its
    traceback.
    """
