"""What Orbax and gcsfs leave behind when they fail to read or write."""

import logging
import sys
from typing import Any


def silence_abandoned_tasks() -> None:
    """For a command: hides tasks that Orbax abandons after the first error, which is raised.

    TensorStore then prints a traceback for each array, dozens after one failed checkpoint: its
    event loop is closed. gcsfs logs a traceback of each error that it raises.
    """
    for name in ('asyncio', 'gcsfs'):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    hook = sys.unraisablehook

    def filtered(unraisable: Any) -> None:
        if str(unraisable.exc_value) != 'Event loop is closed':
            hook(unraisable)

    sys.unraisablehook = filtered
