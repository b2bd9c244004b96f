"""A split in memory: decoded once, then one vectorised gather a batch."""

import dataclasses
import os
import sys
from contextlib import closing

import grain
import numpy as np
from jaxtyping import Int32, UInt8
from tqdm import tqdm

from vit_jax.data.order import EvalOrder, TrainOrder
from vit_jax.data.preprocess import Preprocessing
from vit_jax.data.records import Reader
from vit_jax.errors import InputError

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class InMemory:
    """A whole split, resized; each process of a run has all of it.

    Args:
      images: pixels.
      labels: classes.
      skipped: what was wrong with examples that are not in it, by their places in the source.
    """

    images: UInt8[np.ndarray, 'num_examples h w c']
    labels: Int32[np.ndarray, 'num_examples']
    skipped: dict[int, str] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        return f'{self.num_examples:,} pictures in memory'

    @property
    def num_examples(self) -> int:
        return len(self.labels)

    def train_batches(self, order: TrainOrder, steps: range) -> grain.IterDataset[Batch]:
        """The batches of some steps; see `vit_jax.data.batches.train_batches`."""

        def batch(step: int) -> Batch:
            position = np.array(order.rows, np.int32)
            return self.gather(order.examples(step)) | {'position': position}

        return _prefetched(grain.MapDataset.range(steps.start, steps.stop).map(batch))

    def eval_batches(self, order: EvalOrder) -> grain.IterDataset[Batch]:
        """All batches; see `vit_jax.data.batches.eval_batches`."""

        def batch(step: int) -> Batch:
            mask = order.counts(step).astype(np.float32)
            return self.gather(order.examples(step)) | {'mask': mask}

        return _prefetched(grain.MapDataset.range(order.steps.stop).map(batch))

    def gather(self, indices: np.ndarray) -> Batch:
        """Images and labels of some examples."""
        return {
            'image': np.take(self.images, indices, axis=0),
            'label': np.take(self.labels, indices),
        }


def _prefetched(batches: grain.MapDataset[Batch]) -> grain.IterDataset[Batch]:
    """By one thread, two ahead: memory is fast enough."""
    return batches.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2))


def read_into_memory(reader: Reader, preprocessing: Preprocessing) -> InMemory:
    """Decodes and resizes a split, in as many threads as there are cores.

    Raises:
      InputError: where an example cannot be used and is not to be left out, or none is left.
    """
    images = np.empty((len(reader), *preprocessing.shape), np.uint8)
    labels = np.empty(len(reader), np.int32)
    count = 0
    records = grain.MapDataset.range(len(reader)).map(
        lambda index: reader.read(index, lambda record: preprocessing.resize(record.decode()))
    )
    ahead = grain.ReadOptions(num_threads=num_cores(), prefetch_buffer_size=64 * num_cores())
    with closing(iter(records.to_iter_dataset(ahead, allow_nones=True))) as pixels:
        progress = tqdm(
            pixels,
            desc='reading pictures into memory',
            total=len(reader),
            disable=not sys.stderr.isatty(),
            leave=False,
        )
        for example in progress:
            if example is not None:
                images[count], labels[count] = example
                count += 1
    if count == 0:
        raise InputError(f'expected pictures, but none can be used: {reader.skipped[0]}')
    return InMemory(images[:count], labels[:count], reader.skipped)


def num_cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
