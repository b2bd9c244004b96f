"""What a command prints: never at the cost of a run, and nothing that libraries leave behind.

This module imports the standard library alone, so that a command can use it from its first line on.
"""

import io
import logging
import sys
import warnings
from typing import Any


class _Output(io.FileIO):
    """A file whose errors are ignored."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


def outlive_readers() -> None:
    """For a command: what cannot be printed, on a closed terminal or pipe, is lost.

    A run has to save itself whether or not anybody reads what it prints. Each line is flushed.
    """
    for name in ('stdout', 'stderr'):
        if stream := getattr(sys, name):
            raw = io.BufferedWriter(_Output(stream.fileno(), 'w', closefd=False))
            options = {'encoding': stream.encoding, 'errors': stream.errors}
            setattr(sys, name, io.TextIOWrapper(raw, line_buffering=True, **options))


def silence_libraries() -> None:
    """For a command: hides what libraries print of errors that are raised anyway.

    Orbax abandons tasks after the first error, and TensorStore then prints a traceback for each
    array, dozens after one failed checkpoint: its event loop is closed. gcsfs logs a traceback of
    each error. Pillow warns of pictures that are refused.
    """
    for name in ('asyncio', 'gcsfs'):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings('ignore', module=r'PIL\.')
    warnings.filterwarnings('ignore', message='coroutine .* was never awaited')
    hook = sys.unraisablehook

    def filtered(unraisable: Any) -> None:
        if str(unraisable.exc_value) != 'Event loop is closed':
            hook(unraisable)

    sys.unraisablehook = filtered
