"""The one error that means: the input is wrong, not the program."""


class InputError(ValueError):
    """What a user gave cannot be used; the message says expected, got and what to do.

    Command lines print it as one line and exit with status 2; any other exception is a bug
    and keeps its traceback.
    """
