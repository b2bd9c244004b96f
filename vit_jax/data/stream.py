"""A split that is read as training goes: random access, decoding in threads, bounded memory.

Whatever the size of the data set, at most six batches of decoded images are held: one in use, two
that are ready on the devices, one on its way there, one being put together, one being decoded; and
two runs of images for each thread, so that none has to wait.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import grain
import numpy as np

from vit_jax.data.crop import ATTEMPTS, choose_crop
from vit_jax.data.memory import Batch, num_cores
from vit_jax.data.order import EvalOrder, TrainOrder, random_uniform
from vit_jax.data.picture import decode_crop, resize_part
from vit_jax.data.preprocess import Preprocessing
from vit_jax.data.records import Reader, Record
from vit_jax.errors import InputError

RUN = 16  # rows that a thread decodes in one go, at most; one by one costs a tenth of the speed
STEPS = 8  # that threads may be at, with the examples of each at hand


class Stream:
    """Decodes each example when its batch is due.

    Args:
      reader: of the split.
      preprocessing: of every picture.
      min_area: smallest share of a picture that a random-resized-crop of training takes; 0 for
        none, which sees pictures as evaluation does.

    Attributes:
      skipped: what was wrong with examples that were left out, by their places in the split.
    """

    def __init__(self, reader: Reader, preprocessing: Preprocessing, min_area: float = 0.0) -> None:
        self._reader = reader
        self._preprocessing = preprocessing
        self._min_area = min_area
        self.skipped = reader.skipped

    def __str__(self) -> str:
        return f'{self.num_examples:,} pictures as a stream'

    @property
    def num_examples(self) -> int:
        return len(self._reader)

    def train_batches(self, order: TrainOrder, steps: range) -> grain.IterDataset[Batch]:
        """The batches of some steps; see `vit_jax.data.batches.train_batches`.

        In the place of an example that is left out stands the one that follows it in the split.
        """
        examples = functools.lru_cache(maxsize=STEPS)(order.examples)

        def row(step: int, at: int) -> dict[str, Any]:
            to_pixels = self._eval_pixels
            if self._min_area:
                to_pixels = functools.partial(self._train_pixels, order.seed, step, order.rows[at])
            first = int(examples(step)[at])
            for index in itertools.chain(range(first, self.num_examples), range(first)):
                if found := self._reader.read(index, to_pixels):
                    return _named(*found) | {'position': np.int32(order.rows[at])}
            raise InputError(f'expected pictures, but none can be used: {self.skipped[first]}')

        return _decoded(row, steps, len(order.rows))

    def eval_batches(self, order: EvalOrder) -> grain.IterDataset[Batch]:
        """All batches; see `vit_jax.data.batches.eval_batches`. Skipped examples do not count."""

        examples = functools.lru_cache(maxsize=STEPS)(order.examples)
        counts = functools.lru_cache(maxsize=STEPS)(order.counts)

        def row(step: int, at: int) -> dict[str, Any]:
            found = None
            if counts(step)[at]:
                found = self._reader.read(int(examples(step)[at]), self._eval_pixels)
            image, label = found or (np.zeros(self._preprocessing.shape, np.uint8), 0)
            return _named(image, label) | {'mask': np.float32(found is not None)}

        return _decoded(row, order.steps, len(order.rows))

    def _eval_pixels(self, record: Record) -> np.ndarray:
        return self._preprocessing.resize(record.decode())

    def _train_pixels(self, seed: int, step: int, row: int, record: Record) -> np.ndarray:
        """A random-resized-crop; what it takes depends on the row of the batch alone."""
        uniform = random_uniform(2 * ATTEMPTS + 2, seed, step, row)

        def choose(height: int, width: int) -> Any:
            return tuple(choose_crop(uniform, height, width, self._min_area).tolist())

        size = self._preprocessing.image_size
        if isinstance(record.picture, bytes):
            pixels = decode_crop(record.picture, record.name, choose, size)
        else:
            pixels = resize_part(record.picture, choose(*record.picture.shape[:2]), size)
        return self._preprocessing.recolour(pixels)


def _named(image: np.ndarray, label: int) -> dict[str, Any]:
    return {'image': image, 'label': np.int32(label)}


def _decoded(
    row: Callable[[int, int], dict[str, Any]], steps: range, num_rows: int
) -> grain.IterDataset[Batch]:
    """Batches of rows, by threads that take several at a time.

    Args:
      row: (step, place among our rows) → the arrays of an example.
      steps: whose batches these are.
      num_rows: of ours in a batch.
    """
    run = max(n for n in range(1, RUN + 1) if num_rows % n == 0)
    runs = num_rows // run

    def rows(number: int) -> Batch:
        step, at = divmod(number, runs)
        examples = [row(step, run * at + i) for i in range(run)]
        return {name: np.stack([example[name] for example in examples]) for name in examples[0]}

    threads = num_cores()
    ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=runs + 2 * threads)
    return (
        grain.MapDataset.range(steps.start * runs, steps.stop * runs)
        .map(rows)
        .to_iter_dataset(ahead)
        .batch(runs, batch_fn=_concatenate)
    )


def _concatenate(runs: Sequence[Batch]) -> Batch:
    return {name: np.concatenate([run[name] for run in runs]) for name in runs[0]}
