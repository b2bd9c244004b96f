"""Which examples make up a batch: a pure function of (seed, step).

Training visits the examples in an endless sequence: epoch 0 in one random order, then epoch 1 in
another, and so on, each example exactly once per epoch. Step t takes the t-th batch of this
sequence, which may span two epochs. No state is carried from step to step, so a resumed run sees
what an uninterrupted one would have seen, on any number of processes: each reads its rows of the
same global batch.
"""

import dataclasses
import functools

import numpy as np
from jaxtyping import Bool, Float64, Int64

from vit_jax.errors import InputError


@functools.lru_cache(maxsize=2)  # a batch spans at most two epochs, unless it is larger than one
def epoch_order(seed: int, epoch: int, num_examples: int) -> Int64[np.ndarray, 'num_examples']:
    """The order of epoch `epoch`: a permutation of 0 … num_examples - 1.

    Sorts raw counter-based random bits, which NumPy promises never to change;
    `Generator.permutation` may change between NumPy versions.
    """
    return np.argsort(random_bits(num_examples, seed, epoch), kind='stable')


def random_bits(number: int, *seeds: int) -> np.ndarray:
    """`number` random uint64, a function of the seeds."""
    return np.random.Philox(np.random.SeedSequence(seeds)).random_raw(number)


def random_uniform(number: int, *seeds: int) -> Float64[np.ndarray, 'number']:
    """`number` random floats in [0, 1), a function of the seeds."""
    return (random_bits(number, *seeds) >> np.uint64(11)) * 2.0**-53


def as_array(rows: range) -> Int64[np.ndarray, 'rows']:
    return np.arange(rows.start, rows.stop)


@dataclasses.dataclass(frozen=True)
class TrainOrder:
    """Which example fills which row of each step's batch.

    Args:
      num_examples: of the split.
      batch_size: rows of the global batch.
      rows: the rows that this process reads.
      seed: of the run.
      repeats: copies of each example in its batch, batch_size / repeats rows apart ("repeated
        augmentation", https://arxiv.org/abs/1901.09335).

    Raises:
      InputError: if repeats does not divide batch_size.
    """

    num_examples: int
    batch_size: int
    rows: range
    seed: int
    repeats: int = 1

    def __post_init__(self) -> None:
        if self.batch_size % self.repeats:
            raise InputError(
                f'data.repeats: expected a divisor of batch_size={self.batch_size}, '
                f'got {self.repeats}'
            )

    def epochs(self, steps: int) -> float:
        """How often a run of that many steps visits each example, repeats not counted."""
        return steps * self.batch_size / self.repeats / self.num_examples

    def examples(self, step: int) -> Int64[np.ndarray, 'rows']:
        """The examples in this process's rows of step `step`, by index."""
        distinct = self.batch_size // self.repeats
        return self._at(step * distinct + as_array(self.rows) % distinct)

    def _at(self, places: Int64[np.ndarray, 'rows']) -> Int64[np.ndarray, 'rows']:
        """The examples at these places of the endless sequence."""
        epochs, offsets = np.divmod(places, self.num_examples)
        indices = np.empty(len(places), np.int64)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            indices[here] = epoch_order(self.seed, epoch, self.num_examples)[offsets[here]]
        return indices


@dataclasses.dataclass(frozen=True)
class EvalOrder:
    """Every example exactly once, in order; the last batch is padded with its first example.

    Args:
      num_examples: of the split.
      batch_size: rows of the global batch.
      rows: the rows that this process reads.
    """

    num_examples: int
    batch_size: int
    rows: range

    @property
    def steps(self) -> range:
        return range(-(-self.num_examples // self.batch_size))

    def examples(self, step: int) -> Int64[np.ndarray, 'rows']:
        """The examples in this process's rows of batch `step`, by index."""
        start = step * self.batch_size
        return np.where(self.mask(step), start + as_array(self.rows), start)

    def mask(self, step: int) -> Bool[np.ndarray, 'rows']:
        """Which of this process's rows of batch `step` count, as opposed to padding."""
        return step * self.batch_size + as_array(self.rows) < self.num_examples
