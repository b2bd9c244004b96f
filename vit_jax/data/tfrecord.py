"""TFDS's TFRecord files: read from the beginning, or converted to array_record once and for all."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grain
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tqdm import tqdm

from vit_jax.errors import InputError


class TfRecords(Sequence[dict[str, Any]]):
    """The examples of a split; call `load` before reading any.

    Args:
      split: TFDS's `SplitInfo` of a split or a slice.
      features, decoders: TFDS's, for `deserialize_example_np`.
    """

    def __init__(self, split: Any, features: Any, decoders: Any) -> None:
        self._files = split.file_instructions
        self._features = features
        self._decoders = decoders
        self._serialized: list[bytes] = []

    def load(self) -> None:
        """Reads all examples into memory, still serialised.

        Raises:
          InputError: see `read_examples`.
        """
        for file in self._files:
            self._serialized += read_examples(file.filename, file.skip, file.take)

    def __len__(self) -> int:
        return sum(file.take for file in self._files)

    def __getitem__(self, index: Any) -> Any:
        serialized = self._serialized[index]
        return self._features.deserialize_example_np(serialized, decoders=self._decoders)


def read_examples(path: str | os.PathLike[str], skip: int, take: int) -> Iterator[bytes]:
    """Serialised examples of a file: `take` of them after the first `skip`.

    Raises:
      InputError: if it cannot be read, or has fewer.
    """
    try:
        records = iter(grain.experimental.TFRecordIterDataset(os.fspath(path)))
        for i in range(skip + take):
            try:
                serialized = next(records)
            except StopIteration:
                raise ValueError(f'it ends after {i} of {skip + take} examples') from None
            if i >= skip:
                yield serialized
    except (OSError, ValueError, MemoryError, OverflowError) as error:  # on corrupt lengths
        raise InputError(f'{path}: expected TFRecord, but it cannot be read: {error}') from None


def convert(builder: tfds.core.DatasetBuilder) -> None:
    """Writes array_record files beside the TFRecord files of a data set, once.

    Each file appears whole or not at all, so an interrupted conversion is resumed by the next call.
    The data set's info lists the new format only once all files exist.

    Raises:
      InputError: if a file cannot be read, or the folder is not writable.
    """
    folder = Path(builder.data_path)
    suffix = tfds.core.FileFormat.ARRAY_RECORD.file_suffix
    files = [
        (source, split.filename_template.replace(filetype_suffix=suffix), i, len(lengths), length)
        for split in builder.info.splits.values()
        for lengths in [split.shard_lengths]
        for i, (source, length) in enumerate(zip(split.filepaths, lengths, strict=True))
    ]
    total = sum(length for *_, length in files)
    try:
        with tqdm(total=total, desc=f'converting {folder}', unit=' examples') as progress:
            for source, template, i, num_files, length in files:
                target = Path(template.sharded_filepath(shard_index=i, num_shards=num_files))
                if target.exists():
                    progress.update(length)
                    continue
                incomplete = target.with_name(f'incomplete.{os.getpid()}.{target.name}')
                writer = ArrayRecordWriter(os.fspath(incomplete), 'group_size:1')
                for serialized in read_examples(source, 0, length):
                    writer.write(serialized)
                    progress.update()
                writer.close()
                incomplete.replace(target)
        for left_behind in folder.glob('incomplete.*'):  # by a call that was killed
            left_behind.unlink(missing_ok=True)
        builder.info.add_alternative_file_format(tfds.core.FileFormat.ARRAY_RECORD)
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            builder.info.write_dataset_info_json(temporary)
            for path in Path(temporary).iterdir():
                path.replace(folder / path.name)
    except (OSError, RuntimeError) as error:  # RuntimeError: array_record on a full disk
        raise InputError(f'{folder}: expected a writable folder, got: {error}') from None
