"""A trace of some steps of a run, for XProf or Perfetto: https://docs.jax.dev/en/latest/profiling.html"""

from collections.abc import Iterator
from typing import Any

import jax

from vit_jax.parallel.distributed import is_first
from vit_jax.run.storage import AnyPath


def profiled(
    batches: Iterator[Any], folder: AnyPath, done: int, steps: tuple[int, ...]
) -> Iterator[Any]:
    """The same batches; the profiler runs while the steps of some of them do.

    Args:
      batches: of the steps of a run, from the first that is to do.
      folder: for the trace.
      done: steps already done.
      steps: the first and the last step to trace, numbered from 1; empty for no trace. Of several
        processes, the first writes it.
    """
    if not steps or not is_first():
        yield from batches
        return
    first, last = steps
    tracing = False
    try:
        for step, batch in enumerate(batches, done + 1):
            # A step's metrics are fetched while the next one runs: by now, `last` has ended.
            if tracing and step > last + 1:
                jax.profiler.stop_trace()
                tracing = False
            if not tracing and first <= step <= last:
                jax.profiler.start_trace(str(folder))
                tracing = True
            yield batch
    finally:
        if tracing:
            jax.profiler.stop_trace()
