"""Data sources: from the name of a data set to the examples of a split."""

import math

from vit_jax.data.files import FileSource, FileSplit
from vit_jax.data.folder import open_folder
from vit_jax.data.listed import open_csv, open_jsonl
from vit_jax.data.memory import InMemory, read_into_memory
from vit_jax.data.picture import MAX_PIXELS
from vit_jax.data.preprocess import Preprocessing
from vit_jax.data.records import Reader
from vit_jax.data.stream import Stream
from vit_jax.data.tfds import TfdsSource, TfdsSplit
from vit_jax.errors import InputError

Source = TfdsSource | FileSource
KINDS = {'folder': open_folder, 'csv': open_csv, 'jsonl': open_jsonl}  # of files


def open_source(source: str, data_dir: str | None = None) -> Source:
    """Opens the data set that a SOURCE names; neither prepares it nor reads examples.

    Args:
      source: 'tfds:NAME', any TFDS data set; 'folder:PATH', pictures in class folders; or
        'csv:PATH' or 'jsonl:PATH', a list of pictures.
      data_dir: where TFDS keeps its data sets; None for TFDS's own default.

    Raises:
      InputError: if there is no such data set, or it has no labelled pictures.
    """
    kind, _, name = source.partition(':')
    if kind == 'tfds' and name:
        return TfdsSource(name, data_dir)
    if kind in KINDS and name:
        return KINDS[kind](name)
    raise InputError(
        f"data.source: expected 'tfds:NAME', such as tfds:mnist, or 'folder:PATH', 'csv:PATH' or "
        f"'jsonl:PATH', got {source!r}"
    )


def is_source(text: str) -> bool:
    """Whether a text names a data source, as opposed to a path."""
    return text.partition(':')[0] in ('tfds', *KINDS) and ':' in text


def open_split(
    source: Source,
    split: str,
    preprocessing: Preprocessing,
    *,
    memory_gib: float = 4.0,
    on_error: str = 'raise',
    max_pixels: int = MAX_PIXELS,
    min_area: float = 0.0,
) -> InMemory | Stream:
    """The examples of a split, in memory or as a stream.

    Args:
      source: from `open_source`.
      split: its name, or a slice such as 'train[:99%]'.
      preprocessing: of every picture.
      memory_gib: the largest split, as resized pixels in GiB, that is read into memory; a larger
        one is decoded again whenever it is due.
      on_error: 'raise', or 'skip' to leave out unusable examples.
      max_pixels: of a picture as stored; a larger one is unusable.
      min_area: of a stream's random-resized-crop in training, see `Stream`.

    Raises:
      InputError: if there is no such split, it is empty, an example is unusable, or it is too large
        for memory and not stored for random access.
    """
    records, is_small = open_records(source, split, preprocessing, memory_gib)
    reader = Reader(records, on_error, max_pixels)
    if is_small:
        return read_into_memory(reader, preprocessing)
    return Stream(reader, preprocessing, min_area)


def open_records(
    source: Source,
    split: str,
    preprocessing: Preprocessing,
    memory_gib: float = 4.0,
) -> tuple[TfdsSplit | FileSplit, bool]:
    """The records of a split, ready to be read by index, and whether it is read into memory.

    Args, Raises: see `open_split`.
    """
    records = source.open(split)
    is_small = len(records) * math.prod(preprocessing.shape) <= memory_gib * 2**30
    if is_small:
        records.load()
    elif not records.random_access:
        raise InputError(
            f'{source.name}: split {split!r} is larger than data.memory_gib and stored as '
            f'TFRecord, which has no random access; convert it once with '
            f'vit_jax prepare {source.name} (and --data-dir if data.dir is set)'
        )
    return records, is_small
