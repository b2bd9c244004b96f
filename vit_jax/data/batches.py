"""The batch at step t, a pure function of (seed, t).

Training examples are visited in an endless sequence: epoch 0 in one random order, then epoch 1 in
another, and so on, each example exactly once an epoch. Step t takes the t-th run of `batch_size`
of them, across the seam of two epochs where it falls there. Nothing is carried from step to step,
so a resumed run sees what an uninterrupted one would have seen.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Int64, UInt8

Batch = dict[str, np.ndarray]


class Examples(NamedTuple):
    """A whole split in memory."""

    images: UInt8[np.ndarray, 'num_examples h w c']
    labels: Int32[np.ndarray, 'num_examples']


@functools.lru_cache(maxsize=2)  # a batch touches at most two epochs, unless it is larger than one
def epoch_order(seed: int, epoch: int, num_examples: int) -> Int64[np.ndarray, 'num_examples']:
    """The order of epoch `epoch`: a permutation of 0 … num_examples - 1.

    Sorts raw counter-based random bits, which NumPy promises never to change, instead of
    `Generator.permutation`, which may change between NumPy's versions.
    """
    bits = np.random.Philox(np.random.SeedSequence([seed, epoch])).random_raw(num_examples)
    return np.argsort(bits, kind='stable')


def example_indices(
    step: int, *, batch_size: int, num_examples: int, seed: int
) -> Int64[np.ndarray, 'batch_size']:
    """Which examples step `step` trains on, in order."""
    place = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs, offsets = np.divmod(place, num_examples)
    indices = np.empty(batch_size, np.int64)
    for epoch in range(epochs[0], epochs[-1] + 1):
        here = epochs == epoch
        indices[here] = epoch_order(seed, epoch, num_examples)[offsets[here]]
    return indices


def train_batch(examples: Examples, step: int, *, batch_size: int, seed: int) -> Batch:
    """The batch that step `step` trains on.

    Returns:
      'image' uint8 [b, h, w, c]; 'label' int32 [b]; 'position' int32 [b], each example's place in
      the global batch, from which its randomness is derived.
    """
    indices = example_indices(
        step, batch_size=batch_size, num_examples=len(examples.labels), seed=seed
    )
    return {
        'image': examples.images[indices],
        'label': examples.labels[indices],
        'position': np.arange(batch_size, dtype=np.int32),
    }


def eval_batches(examples: Examples, batch_size: int) -> Iterator[Batch]:
    """Every example exactly once, in order, in batches of one shape.

    Returns:
      'image' uint8 [b, h, w, c]; 'label' int32 [b]; 'mask' float32 [b], 0 where the last batch is
      filled up (with repetitions of its first example).
    """
    num_examples = len(examples.labels)
    for start in range(0, num_examples, batch_size):
        indices = np.arange(start, start + batch_size)
        real = indices < num_examples
        indices = np.where(real, indices, start)
        yield {
            'image': examples.images[indices],
            'label': examples.labels[indices],
            'mask': real.astype(np.float32),
        }
