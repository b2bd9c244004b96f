"""Where examples come from, and the batch at step t."""

from collections.abc import Callable
from contextlib import closing
from typing import Any

import grain

from vit_jax.data.folder import FolderSource
from vit_jax.data.memory import Examples, read_into_memory
from vit_jax.data.order import EvalOrder, TrainOrder
from vit_jax.data.records import Reader
from vit_jax.data.stream import Stream
from vit_jax.data.tfds import TfdsSource
from vit_jax.errors import InputError
from vit_jax.preprocess import Preprocessing

__all__ = [
    'EvalOrder',
    'Examples',
    'FolderSource',
    'Stream',
    'TfdsSource',
    'TrainOrder',
    'eval_batches',
    'open_source',
    'open_split',
    'train_batches',
]

PREFETCH = 2  # batches on their way to the devices while a step runs


def open_source(source: str, data_dir: str | None = None) -> TfdsSource | FolderSource:
    """The data set that a SOURCE names; reads and prepares no examples yet.

    Args:
      source: 'tfds:NAME', any data set of TFDS, or 'folder:PATH', pictures in folders of classes.
      data_dir: where TFDS keeps its data sets; None is TFDS's own default.

    Raises:
      InputError: where there is no such data set, or it has no labelled pictures.
    """
    kind, _, name = source.partition(':')
    if kind == 'tfds' and name:
        return TfdsSource(name, data_dir)
    if kind == 'folder' and name:
        return FolderSource(name)
    raise InputError(
        f"data.source: expected 'tfds:NAME', as tfds:mnist, or 'folder:PATH', got {source!r}"
    )


def open_split(
    source: TfdsSource | FolderSource,
    split: str,
    preprocessing: Preprocessing,
    *,
    memory_gib: float = 4.0,
    on_error: str = 'raise',
    min_area: float = 0.0,
) -> Examples | Stream:
    """The examples of a split, in memory or as a stream.

    Args:
      source: from `open_source`.
      split: of it, slices such as 'train[:99%]' too.
      preprocessing: of every picture.
      memory_gib: how large a split, as resized pixels, may be to be read into memory, GiB; what
        does not fit is decoded again each time it is due.
      on_error: 'raise', or 'skip' for going on without examples that cannot be used.
      min_area: of a stream's random-resized-crop in training, see `Stream`.

    Raises:
      InputError: where there is no such split, it is empty, one of its examples cannot be used, or
        it is too large for memory and has to be prepared for random access.
    """
    records = source.open(split)
    reader = Reader(records, on_error)
    height, width, channels = preprocessing.shape
    if len(records) * height * width * channels <= memory_gib * 2**30:
        records.load()
        return read_into_memory(reader, preprocessing)
    if not records.random_access:
        raise InputError(
            f'{source.name}: split {split!r} is larger than data.memory_gib and stored as '
            f'TFRecord, which cannot be read in random order; python -m vit_jax prepare '
            f'{source.name} converts it once (with --data-dir, if data.dir is set)'
        )
    return Stream(reader, preprocessing, min_area)


def train_batches(
    examples: Examples | Stream, order: TrainOrder, steps: range, put: Callable[[Any], Any]
) -> closing[grain.DatasetIterator]:
    """The batches of some steps, read ahead by threads.

    Args:
      examples: from `open_split`.
      order: of the examples.
      steps: whose batches these are; a step's batch depends on nothing but its number.
      put: brings a batch to the devices.

    Returns:
      A context manager around the iterator, which ends the threads. Of a batch it has the rows of
      `order.rows`: 'image' uint8 [b, h, w, c]; 'label' int32 [b]; 'position' int32 [b], each
      example's place in the global batch, from which its randomness is derived.

    Raises:
      InputError: on iteration, where an example cannot be used and is not to be left out.
    """
    return _read_ahead(examples.train_batches(order, steps), put)


def eval_batches(
    examples: Examples | Stream, order: EvalOrder, put: Callable[[Any], Any]
) -> closing[grain.DatasetIterator]:
    """Every example exactly once, in order, in batches of one shape, read ahead by threads.

    Args, Raises: see `train_batches`.

    Returns:
      As `train_batches`, with 'mask' float32 [b] instead of 'position', 0 where the last batch is
      filled up, or an example left out.
    """
    return _read_ahead(examples.eval_batches(order), put)


def _read_ahead(
    batches: grain.IterDataset, put: Callable[[Any], Any]
) -> closing[grain.DatasetIterator]:
    on_devices = batches.map(put)
    ahead = grain.experimental.ThreadPrefetchIterDataset(on_devices, prefetch_buffer_size=PREFETCH)
    return closing(iter(ahead))
