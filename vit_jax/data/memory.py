"""A split in memory: decoded once, then one vectorised gather per batch."""

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
    """A whole split, resized; each process of a run holds all of it.

    Args:
      images: pixels.
      labels: classes; of multi-label data, 1 for each class of an example and 0 for the others.
      skipped: the reason for each example left out, by its index in the split as stored.
    """

    images: UInt8[np.ndarray, 'num_examples h w c']
    labels: Int32[np.ndarray, 'num_examples'] | UInt8[np.ndarray, 'num_examples k']
    skipped: dict[int, str] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        return f'{self.num_examples:,} pictures in memory'

    @property
    def num_examples(self) -> int:
        return len(self.labels)

    @property
    def multi_label(self) -> bool:
        return self.labels.ndim == 2

    def train_batches(self, order: TrainOrder, steps: range) -> grain.IterDataset[Batch]:
        """The batches of a range of steps; see `vit_jax.data.batches.train_batches`."""

        def batch(step: int) -> Batch:
            position = np.array(order.rows, np.int32)
            return self.gather(order.examples(step)) | {'position': position}

        return _prefetched(grain.MapDataset.range(steps.start, steps.stop).map(batch))

    def eval_batches(self, order: EvalOrder) -> grain.IterDataset[Batch]:
        """All batches; see `vit_jax.data.batches.eval_batches`."""

        def batch(step: int) -> Batch:
            mask = order.mask(step).astype(np.float32)
            return self.gather(order.examples(step)) | {'mask': mask}

        return _prefetched(grain.MapDataset.range(order.steps.stop).map(batch))

    def gather(self, indices: np.ndarray) -> Batch:
        """Images and labels of the examples with these indices."""
        return {
            'image': np.take(self.images, indices, axis=0),
            'label': np.take(self.labels, indices, axis=0),
        }


def _prefetched(batches: grain.MapDataset[Batch]) -> grain.IterDataset[Batch]:
    """One thread, two batches ahead, is fast enough from memory."""
    return batches.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2))


def read_into_memory(reader: Reader, preprocessing: Preprocessing) -> InMemory:
    """Decodes and resizes a split, with one thread per core.

    Raises:
      InputError: if an example is unusable and is not to be skipped, or none is usable.
    """
    images = np.empty((len(reader), *preprocessing.shape), np.uint8)
    labels = np.empty((len(reader), *reader.no_label.shape), reader.no_label.dtype)
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
        raise InputError(f'expected pictures, but none is usable: {reader.skipped[0]}')
    return InMemory(images[:count], labels[:count], reader.skipped)


def num_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
