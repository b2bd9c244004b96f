"""The batches of a split, read ahead by threads and put on the devices."""

from collections.abc import Callable
from contextlib import closing
from typing import Any

import grain

from vit_jax.data.memory import InMemory
from vit_jax.data.order import EvalOrder, TrainOrder
from vit_jax.data.stream import Stream

PREFETCH = 2  # batches on their way to the devices while a step runs


def train_batches(
    examples: InMemory | Stream, order: TrainOrder, steps: range, put: Callable[[Any], Any]
) -> closing[grain.DatasetIterator]:
    """The batches of a range of steps.

    Args:
      examples: from `vit_jax.data.sources.open_split`.
      order: of the examples.
      steps: whose batches these are; a step's batch depends on nothing but its number.
      put: puts a batch on the devices.

    Returns:
      A context manager around the iterator, which ends its threads. Each batch holds the rows in
      `order.rows`: 'image' uint8 [b, h, w, c]; 'label' int32 [b], or uint8 [b, num_classes]
      of zeros and ones if multi-label; 'position' int32 [b], each example's place in the global
      batch, from which its randomness is derived.

    Raises:
      InputError: during iteration, if an example is unusable and is not to be skipped.
    """
    return _read_ahead(examples.train_batches(order, steps), put)


def eval_batches(
    examples: InMemory | Stream, order: EvalOrder, put: Callable[[Any], Any]
) -> closing[grain.DatasetIterator]:
    """Every example exactly once, in order, in batches of one shape.

    Args, Raises: see `train_batches`.

    Returns:
      Like `train_batches`, with 'mask' float32 [b] instead of 'position': 0 for padding in the last
      batch and for skipped examples.
    """
    return _read_ahead(examples.eval_batches(order), put)


def _read_ahead(
    batches: grain.IterDataset, put: Callable[[Any], Any]
) -> closing[grain.DatasetIterator]:
    on_devices = batches.map(put)
    ahead = grain.experimental.ThreadPrefetchIterDataset(on_devices, prefetch_buffer_size=PREFETCH)
    return closing(iter(ahead))
