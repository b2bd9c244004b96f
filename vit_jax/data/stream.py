"""A split decoded during training: random access, decoding threads, bounded memory.

Whatever the size of the data set, at most six batches of decoded images are held: one in use, two
ready on the devices, one in transfer, one being assembled and one being decoded; plus two chunks of
images per thread, so that no thread waits.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import grain
import numpy as np
from jaxtyping import Int32, UInt8

from vit_jax.data.crop import ATTEMPTS, choose_crop
from vit_jax.data.memory import Batch, num_cores
from vit_jax.data.order import EvalOrder, TrainOrder, random_uniform
from vit_jax.data.picture import crop_and_resize, decode_crop
from vit_jax.data.preprocess import Preprocessing
from vit_jax.data.records import Reader, Record
from vit_jax.errors import InputError

CHUNK = 16  # rows per decoding task, at most; single rows cost a tenth of the speed
HELD = 6  # batches of decoded images, at most
LOOKAHEAD = 8  # steps whose orders are cached; threads may be at different steps


class Stream:
    """Decodes each example when its batch is due.

    Args:
      reader: of the split.
      preprocessing: of every picture.
      min_area: smallest fraction of a picture that random-resized-crop keeps in training; 0 for no
        such crop: pictures as in evaluation.

    Attributes:
      skipped: the reason for each skipped example, by its index in the split.
    """

    def __init__(self, reader: Reader, preprocessing: Preprocessing, min_area: float = 0.0) -> None:
        self._reader = reader
        self._preprocessing = preprocessing
        self._min_area = min_area
        self.skipped = reader.skipped
        self._intact = np.zeros(len(reader), bool)  # pictures that were decoded to their end

    def __str__(self) -> str:
        return f'{self.num_examples:,} pictures as a stream'

    @property
    def num_examples(self) -> int:
        return len(self._reader)

    @property
    def labels(self) -> Int32[np.ndarray, 'num_examples'] | UInt8[np.ndarray, 'num_examples k']:
        """See `vit_jax.data.memory.InMemory`, with those of unusable examples.

        Raises:
          InputError: if they are known only once each example is read.
        """
        if (labels := self._reader.labels) is None:
            raise InputError(
                'balancing the classes: expected a split in memory, since those of this stream are '
                'known only once it is read; raise data.memory_gib'
            )
        return labels

    @property
    def multi_label(self) -> bool:
        return self._reader.no_label.ndim == 1

    def train_batches(self, order: TrainOrder, steps: range) -> grain.IterDataset[Batch]:
        """The batches of a range of steps; see `vit_jax.data.batches.train_batches`.

        A skipped example is replaced by the next usable one in the split.
        """
        examples = functools.lru_cache(maxsize=LOOKAHEAD)(order.examples)

        def row(step: int, at: int) -> dict[str, Any]:
            first = int(examples(step)[at])
            for index in itertools.chain(range(first, self.num_examples), range(first)):
                to_pixels = self._eval_pixels
                if self._min_area:
                    place = index, order.seed, step, order.rows[at]
                    to_pixels = functools.partial(self._train_pixels, *place)
                if found := self._reader.read(index, to_pixels):
                    return _named(*found) | {'position': np.int32(order.rows[at])}
            raise InputError(f'expected pictures, but none is usable: {self.skipped[first]}')

        return _decoded(row, steps, len(order.rows))

    def eval_batches(self, order: EvalOrder) -> grain.IterDataset[Batch]:
        """All batches; see `vit_jax.data.batches.eval_batches`. Skipped examples do not count."""

        examples = functools.lru_cache(maxsize=LOOKAHEAD)(order.examples)
        mask = functools.lru_cache(maxsize=LOOKAHEAD)(order.mask)

        def row(step: int, at: int) -> dict[str, Any]:
            found = None
            if mask(step)[at]:
                found = self._reader.read(int(examples(step)[at]), self._eval_pixels)
            padding = np.zeros(self._preprocessing.shape, np.uint8), self._reader.no_label
            return _named(*found or padding) | {'mask': np.float32(found is not None)}

        return _decoded(row, order.steps, len(order.rows))

    def gather(self, indices: np.ndarray) -> Batch:
        """Images, as in evaluation, and labels of the usable examples with these indices."""
        found = [self._reader.read(index, self._eval_pixels) for index in indices.tolist()]
        images, labels = zip(*filter(None, found), strict=True) if found else ((), ())
        shape, no_label = (-1, *self._preprocessing.shape), self._reader.no_label
        return {
            'image': np.array(images, np.uint8).reshape(shape),
            'label': np.array(labels, no_label.dtype).reshape(-1, *no_label.shape),
        }

    def _eval_pixels(self, record: Record) -> np.ndarray:
        return self._preprocessing.resize(record.decode())

    def _train_pixels(
        self, index: int, seed: int, step: int, row: int, record: Record
    ) -> np.ndarray:
        """A random-resized-crop; its random numbers depend only on seed, step and row.

        For its first crop, a picture is decoded to its end, which shows whether it is damaged.
        """
        uniform = random_uniform(2 * ATTEMPTS + 2, seed, step, row)

        def choose(height: int, width: int) -> Any:
            return tuple(choose_crop(uniform, height, width, self._min_area).tolist())

        size = self._preprocessing.image_size
        if isinstance(record.picture, bytes):
            to_end = not self._intact[index]
            limit = record.max_pixels
            pixels = decode_crop(record.picture, record.name, choose, size, limit, to_end)
            self._intact[index] = True
        else:
            pixels = crop_and_resize(record.picture, choose(*record.picture.shape[:2]), size)
        return self._preprocessing.recolour(pixels)


def _named(image: np.ndarray, label: np.ndarray) -> dict[str, Any]:
    return {'image': image, 'label': label}


def _decoded(
    row: Callable[[int, int], dict[str, Any]], steps: range, num_rows: int
) -> grain.IterDataset[Batch]:
    """Batches of rows, decoded chunk by chunk in threads.

    Args:
      row: (step, index among this process's rows) → the arrays of an example.
      steps: whose batches these are.
      num_rows: of this process in a batch.
    """
    chunk = max(n for n in range(1, CHUNK + 1) if num_rows % n == 0)
    num_chunks = num_rows // chunk

    def rows(task: int) -> Batch:
        step, at = divmod(task, num_chunks)
        examples = [row(step, chunk * at + i) for i in range(chunk)]
        return {name: np.stack([example[name] for example in examples]) for name in examples[0]}

    threads = num_cores()
    ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=num_chunks + 2 * threads)
    return (
        grain.MapDataset.range(steps.start * num_chunks, steps.stop * num_chunks)
        .map(rows)
        .to_iter_dataset(ahead)
        .batch(num_chunks, batch_fn=_concatenate)
    )


def _concatenate(chunks: Sequence[Batch]) -> Batch:
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
