"""Features of many pictures, in one file; an interrupted extraction resumes.

The pictures are read in parts of 1,024. The features of each part are stored beside the output, in
OUTPUT.parts, as soon as they are computed, and joined in the end.
"""

import dataclasses
import itertools
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jaxtyping import Float32, Int32, UInt8
from tqdm import tqdm

from vit_jax.data.files import Example, FileSplit
from vit_jax.data.picture import MAX_PIXELS
from vit_jax.data.records import Reader, Split
from vit_jax.data.sources import open_records, open_source
from vit_jax.errors import InputError
from vit_jax.model.arguments import argument_names
from vit_jax.run.storage import remove
from vit_jax.use.feature_parts import (
    as_json,
    hash_of,
    open_folder,
    part_ranges,
    read_part,
    stamp_of,
    write_arrays,
)
from vit_jax.use.predict import BATCH_SIZES, Predictor, read_ahead
from vit_jax.weights.files import as_input_error

Report = Callable[[str], None]
log: Report = logging.getLogger('vit_jax').warning


class Features(NamedTuple):
    """What the classifier would read of each of n pictures.

    Args:
      features: [n, d], see `vit_jax.Predictor.features`.
      labels: [n], or [n, num_classes] of zeros and ones if multi-label; None if unknown.
      class_names: in label order; None if unknown.
      names: of the pictures: their file, or their number in the split.
    """

    features: Float32[np.ndarray, 'n d']
    labels: Int32[np.ndarray, 'n'] | UInt8[np.ndarray, 'n k'] | None
    class_names: list[str] | None
    names: list[str]


class Pictures(NamedTuple):
    """Pictures to extract features of.

    Args:
      records: by index.
      class_names: in the order of the records' labels; None if their labels mean nothing.
    """

    records: Split
    class_names: list[str] | None

    @property
    def names(self) -> list[str]:
        return [self.records.name(index) for index in range(len(self.records))]


def list_pictures(paths: Iterable[str]) -> Pictures:
    """Picture files, which have no labels; see `vit_jax.use.pictures.find_pictures`."""
    files = list(paths)
    if not files:
        raise InputError('expected pictures, got none')
    return Pictures(FileSplit([Example(path, (0,), path) for path in files], 1, False), None)


def list_examples(
    predictor: Predictor, source: str, split: str, data_dir: str | None = None
) -> Pictures:
    """The labelled examples of a split of a data source, see `vit_jax.data.sources`.

    Raises:
      InputError: if there is no such source or split, or it cannot be read by index.
    """
    data = open_source(source, data_dir)
    records, _ = open_records(data, split, predictor.preprocessing)
    return Pictures(records, data.class_names)


def extract_features(
    predictor: Predictor,
    pictures: Pictures,
    output: str | os.PathLike[str],
    *,
    on_error: str = 'raise',
    max_pixels: int = MAX_PIXELS,
    report: Report = log,
) -> Features:
    """Features of pictures, over all devices, as a `.npz` file.

    The arrays are 'features', float32 [n, d]; 'names' [n]; 'labels' and 'class_names' where they
    are known, see `Features`; and 'extraction', JSON that identifies what they were computed from.
    Threads decode 128 pictures ahead; only those and the features are held in memory. If `output`
    is complete already, nothing is computed.

    Args:
      predictor: with the weights.
      pictures: from `list_pictures` or `list_examples`.
      output: the file, written whole or not at all.
      on_error: 'raise', or 'skip' to leave out unusable pictures.
      max_pixels: of a picture; a larger one is unusable.
      report: takes a line on what was skipped, resumed or not done again.

    Returns:
      The content of the file.

    Raises:
      InputError: if `output` cannot be a file, a picture is unusable and is not to be skipped, or
        none is usable. What was computed before is kept.
    """
    output = check_output(output)
    names = pictures.names
    stamps = [stamp_of(names[rows.start : rows.stop]) for rows in part_ranges(len(names))]
    made_with = _made_with(predictor, pictures, max_pixels)
    extraction = {**made_with, 'pictures': len(names), 'stamp': hash_of(stamps)}
    if found := _read_complete(output, extraction, on_error):
        report(f'{output}: complete already')
        return found
    folder = output.with_name(f'{output.name}.parts')
    devices = f'{jax.device_count()} x {jax.devices()[0].device_kind}, jax {jax.__version__}'
    open_folder(folder, {**made_with, 'devices': devices}, report)
    reader = Reader(pictures.records, on_error, max_pixels)
    columns = _join(_compute(predictor, reader, folder, stamps, on_error, report), len(names))
    kept = columns.pop('kept')
    if not len(kept):
        raise InputError(f'expected pictures, but none of {len(names):,} is usable')
    names = [names[index] for index in kept]
    labels = columns['labels'] if pictures.class_names else None
    result = Features(columns['features'], labels, pictures.class_names, names)
    labelled = {} if labels is None else {'labels': labels, 'class_names': result.class_names}
    arrays = {'features': result.features, 'names': names, **labelled}
    write_arrays(output, {**arrays, 'extraction': json.dumps(extraction, sort_keys=True)}, folder)
    remove(folder)
    return result


def read_features(path: str | os.PathLike[str]) -> Features:
    """Reads a file of `extract_features`.

    Raises:
      InputError: if it is missing or damaged.
    """
    return _read(path)[0]


def check_output(path: str | os.PathLike[str]) -> Path:
    """The path of a file of features to write.

    Raises:
      InputError: if it does not end in .npz, or its folder does not exist.
    """
    path = Path(path)
    if path.suffix != '.npz' or path.is_dir():
        raise InputError(f'{path}: expected a file ending in .npz to write features to')
    if not path.parent.is_dir():
        raise InputError(f'{path}: expected a file in an existing folder')
    return path


def _compute(
    predictor: Predictor,
    reader: Reader,
    folder: Path,
    stamps: list[str],
    on_error: str,
    report: Report,
) -> Iterator[dict[str, np.ndarray]]:
    """The columns of each part: as stored, or computed and then stored."""
    ranges = part_ranges(len(reader))
    paths = [folder / f'{number:06}.npz' for number in range(len(ranges))]
    each = zip(paths, stamps, ranges, strict=True)
    missing = {part[2]: None for part in each if not read_part(*part, on_error)}  # in order
    if stored := len(ranges) - len(missing):
        report(f'{folder}: resuming with {stored:,} of {len(ranges):,} parts done')

    def read(index: int) -> tuple[np.ndarray, np.ndarray] | None:
        return reader.read(index, lambda record: predictor.preprocessing.resize(record.decode()))

    ahead = read_ahead(itertools.chain.from_iterable(missing), read, BATCH_SIZES[-1])
    hidden = not sys.stderr.isatty()
    with closing(ahead), tqdm(total=len(reader), unit=' pictures', disable=hidden) as progress:
        for path, stamp, rows in zip(paths, stamps, ranges, strict=True):
            if rows in missing:
                part = _compute_part(predictor, ahead, rows, reader.no_label, progress.update)
                for index in sorted(set(rows) - set(part['kept'].tolist())):
                    report(f'skipped: {reader.skipped[index]}')
                write_arrays(path, {**part, 'stamp': stamp}, folder)
            else:
                part = read_part(path, stamp, rows, on_error) or {}
                progress.update(len(rows))
            yield part


def _compute_part(
    predictor: Predictor,
    ahead: Iterator[Any],
    rows: range,
    no_label: np.ndarray,
    update: Callable[[int], Any],
) -> dict[str, np.ndarray]:
    """The columns of the next pictures that were read ahead, as many as there are rows."""
    found = []
    for start in range(0, len(rows), BATCH_SIZES[-1]):
        batch = list(itertools.islice(ahead, min(BATCH_SIZES[-1], len(rows) - start)))
        found.append(_extract(predictor, batch, no_label))
        update(len(batch))
    return {name: np.concatenate([columns[name] for columns in found]) for name in found[0]}


def _extract(
    predictor: Predictor,
    batch: list[tuple[int, tuple[np.ndarray, np.ndarray] | None]],
    no_label: np.ndarray,
) -> dict[str, np.ndarray]:
    """Features and labels of the usable ones of at most 128 pictures, and which these are."""
    usable = [(index, *found) for index, found in batch if found]
    images = [pixels for _, pixels, _ in usable] or [np.zeros(predictor.preprocessing.shape, 'u1')]
    return {
        'features': predictor.extract(images)[: len(usable)],
        'labels': np.array([no_label, *(label for *_, label in usable)], no_label.dtype)[1:],
        'kept': np.array([index for index, *_ in usable], np.int64),
    }


def _join(parts: Iterable[dict[str, np.ndarray]], most: int) -> dict[str, np.ndarray]:
    """The columns of all parts, of at most that many rows, held in memory only once."""
    columns: dict[str, np.ndarray] = {}
    count = 0
    for part in parts:
        for name, values in part.items():
            if name not in columns:
                columns[name] = np.empty((most, *values.shape[1:]), values.dtype)
            columns[name][count : count + len(values)] = values
        count += len(part['kept'])
    return {name: column[:count] for name, column in columns.items()}


def _read(path: str | os.PathLike[str]) -> tuple[Features, dict[str, Any]]:
    """A file of features, and what it was computed from."""
    if not os.path.isfile(path):
        raise InputError(f'{path}: no such file')
    with as_input_error(path), open(path, 'rb') as file, np.load(file, allow_pickle=False) as found:
        arrays = dict(found)
        names = arrays['names'].tolist()
        class_names = arrays['class_names'].tolist() if 'class_names' in arrays else None
        features = Features(arrays['features'], arrays.get('labels'), class_names, names)
        return features, json.loads(str(arrays['extraction']))


def _read_complete(path: Path, extraction: dict[str, Any], on_error: str) -> Features | None:
    """What a file holds if it was computed from the same; None if not, or if it may lack some."""
    try:
        found, made_from = _read(path)
    except InputError:
        return None
    whole = on_error == 'skip' or len(found.names) == extraction['pictures']
    return found if whole and made_from == extraction else None


def _made_with(predictor: Predictor, pictures: Pictures, max_pixels: int) -> dict[str, Any]:
    """All that the features of a picture depend on, and what its label means."""
    model = predictor.model
    arguments = {name: str(getattr(model, name)) for name in argument_names(model)}
    params = flatten_dict(predictor.variables['params'], sep='/')
    hashes = [f'{name} {hash_of(np.asarray(x).tobytes())}' for name, x in sorted(params.items())]
    return as_json(
        {
            'weights': hash_of([json.dumps(arguments, sort_keys=True), *hashes]),
            'preprocessing': dataclasses.asdict(predictor.preprocessing),
            'max_pixels': max_pixels,
            'class_names': pictures.class_names,
        }
    )
