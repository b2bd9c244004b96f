"""Reads that Orbax leaves unfinished when one of a checkpoint's arrays is damaged."""

import functools
import gc
import inspect
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from vit_jax.errors import InputError

F = TypeVar('F', bound=Callable[..., Any])


def drops_unfinished_reads(restore: F) -> F:
    """A function that raises InputError if a checkpoint is damaged, without tracebacks before it.

    Orbax reads all arrays at once. If one read fails, the others stay suspended, and each raises
    when it is collected: Python prints that as an exception that was ignored, at any later time.
    """

    @functools.wraps(restore)
    def quiet(*args: Any, **kwargs: Any) -> Any:
        hook = sys.unraisablehook

        def report(unraisable: Any) -> None:
            if not inspect.iscoroutine(unraisable.object):
                hook(unraisable)

        sys.unraisablehook = report
        try:
            return restore(*args, **kwargs)
        except InputError:
            gc.collect()
            raise
        finally:
            sys.unraisablehook = hook

    return quiet  # type: ignore[return-value]
