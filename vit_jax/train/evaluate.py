"""The metrics of a whole split, every example counted exactly once."""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from vit_jax.data.batches import eval_batches
from vit_jax.data.memory import InMemory
from vit_jax.data.order import EvalOrder
from vit_jax.data.stream import Stream
from vit_jax.errors import InputError
from vit_jax.parallel.distributed import Wishes
from vit_jax.parallel.parallel import Jit, Pmap
from vit_jax.run import signals
from vit_jax.train.average_precision import mean_average_precision


def evaluate(
    eval_step: Callable[..., Any], state: Any, examples: InMemory | Stream, parallel: Jit | Pmap
) -> dict[str, float]:
    """Mean loss and accuracy; of multi-label data, also the mean average precision.

    Args:
      eval_step: `Learner.eval_step`, wrapped by `parallel`.
      state: on the devices.
      examples: of the split.
      parallel: how `eval_step` runs over the devices.

    Raises:
      InputError: if an example is unusable and is not to be skipped, or none is left.
      Interrupted: if a signal has asked the run to stop.
    """
    sums = run_batches(eval_step, state, examples, parallel)
    parts = [batch.pop('examples') for batch in sums if 'examples' in batch]
    total = jax.tree.map(lambda *values: math.fsum(map(float, values)), *sums)
    count = total.pop('count')
    if not count:
        raise InputError('expected pictures to evaluate on, but none is usable')
    means = {name: value / count for name, value in total.items()}
    if parts:
        mask = np.concatenate([part.pop('mask') for part in parts]).astype(bool)
        columns = {n: np.concatenate([part[n] for part in parts])[mask] for n in parts[0]}
        labels = columns.pop('labels')
        for name, logits in columns.items():  # 'logits', and 'ema_logits' if there is an average
            of_these = name.replace('logits', 'mean_average_precision')
            means[of_these] = mean_average_precision(labels, logits)
    return means


def run_batches(
    step: Callable[..., Any], state: Any, examples: InMemory | Stream, parallel: Jit | Pmap
) -> list[Any]:
    """What a compiled function of the state and a batch returns for each batch of a split.

    Args:
      step: wrapped by `parallel.eval_step`.
      state: on the devices.
      examples: of the split.
      parallel: how `step` runs over the devices.

    Raises:
      InputError: if an example is unusable and is not to be skipped.
      Interrupted: if a signal has asked the run to stop.
    """
    order = EvalOrder(examples.num_examples, parallel.batch_size, parallel.rows)
    results: list[Any] = []
    with Wishes(1) as wishes, eval_batches(examples, order, parallel.put_batch) as batches:
        for batch in batches:
            if any(wishes(signals.has_come())):
                signals.stop()
            results.append(step(state, batch))
            # Fetched one batch late, so that only a few batches are on the devices.
            results[-2:-1] = jax.device_get(results[-2:-1])
        return jax.device_get(results)
