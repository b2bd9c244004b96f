"""What Orbax leaves behind when it fails to read or write a checkpoint."""

import logging
import sys
from typing import Any


def silence_abandoned_tasks() -> None:
    """For a command: hides tasks that Orbax abandons after the first error, which is raised.

    TensorStore then prints a traceback for each array, dozens after one failed checkpoint: its
    event loop is closed.
    """
    logging.getLogger('asyncio').setLevel(logging.CRITICAL)
    hook = sys.unraisablehook

    def filtered(unraisable: Any) -> None:
        if str(unraisable.exc_value) != 'Event loop is closed':
            hook(unraisable)

    sys.unraisablehook = filtered
