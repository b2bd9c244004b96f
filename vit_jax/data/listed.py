"""`csv:PATH` and `jsonl:PATH`: pictures listed in a file, with any number of classes each."""

import csv
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from vit_jax.data.files import Example, FileSource, split_by_hash
from vit_jax.errors import InputError

COLUMNS = ('file', 'labels', 'label', 'split')
SEPARATOR = '|'  # of labels in a cell; ';' separates the cells themselves in many countries

Objects = Iterator[tuple[int, dict[str, Any]]]  # the number of each line, and what it says


class Row(NamedTuple):
    """A picture of a list.

    Args:
      file: its path, absolute or relative to the folder of the list.
      labels: names of its classes.
      split: its split; None if the list leaves that to `split_by_hash`.
    """

    file: str
    labels: list[str]
    split: str | None


def open_csv(path: str) -> FileSource:
    """Pictures listed in a CSV file with the columns file, labels and, optionally, split.

    A cell of labels holds any number of classes, separated by '|': the data is multi-label. With a
    column label instead, each picture has exactly one class. A file is absolute, or relative to the
    folder of the list. Without a column split, `split_by_hash` chooses the test split.

    Raises:
      InputError: if the list cannot be read; or a line of it is wrong, which the message names.
    """
    return _open(f'csv:{path}', path, _read_csv)


def open_jsonl(path: str) -> FileSource:
    """Like `open_csv`, with a JSON object in each line.

    'labels' is a list of strings, 'label' a string: {"file": "a.jpg", "labels": ["cat", "dog"]}.
    """
    return _open(f'jsonl:{path}', path, _read_jsonl)


def _open(name: str, path: str, read: Callable[[TextIO], Objects]) -> FileSource:
    listed = Path(os.path.expanduser(path))
    try:
        with listed.open(encoding='utf-8-sig', newline='') as file:  # spreadsheets write a BOM
            objects = list(read(file))
        rows = _check(objects)
    except OSError as error:
        raise InputError(f'{name}: the list cannot be read: {error.strerror}') from None
    except UnicodeDecodeError:
        raise InputError(f'{name}: expected text in UTF-8; save the list as such') from None
    except InputError as error:
        raise InputError(f'{name}: {error}') from None
    multi_label = 'labels' in objects[0][1]
    class_names = sorted({label for row in rows for label in row.labels})
    index = {label: i for i, label in enumerate(class_names)}
    splits: dict[str, list[Example]] = {}
    for row in rows:
        labels = tuple(sorted({index[label] for label in row.labels}))
        example = Example(str(listed.parent / row.file), labels, row.file)
        splits.setdefault(row.split or '', []).append(example)
    if '' in splits:
        splits = split_by_hash(splits[''])
    notes = []
    if others := sorted({key for _, found in objects for key in found} - set(COLUMNS)):
        notes.append(f'{name}: columns left out: {_say(others)}')
    if multi_label:
        count = sum(len(row.labels) for row in rows) / len(rows)
        notes.append(f'{name}: multi-label, with {count:.3g} classes a picture on average')
    return FileSource(name, splits, class_names, multi_label, notes)


def _read_csv(file: TextIO) -> Objects:
    reader = csv.DictReader(file, skipinitialspace=True, strict=True)
    try:
        for row in reader:
            if None in row or None in row.values():
                raise InputError(
                    f'line {reader.line_num}: expected {len(reader.fieldnames or ())} cells, as in '
                    f'the header; quote a cell that contains a comma'
                )
            found: dict[str, Any] = {name.strip(): cell.strip() for name, cell in row.items()}
            if 'labels' in found:
                cell = found['labels']
                found['labels'] = [x.strip() for x in cell.split(SEPARATOR)] if cell else []
            if SEPARATOR in found.get('label', ''):
                raise InputError(
                    f'line {reader.line_num}: expected one label, got {found["label"]!r}; name the '
                    f'column labels if a picture may have several'
                )
            yield reader.line_num, found
    except csv.Error as error:
        raise InputError(f'line {reader.reader.line_num}: expected CSV: {error}') from None


def _read_jsonl(file: TextIO) -> Objects:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise InputError(
                f'line {number}: expected a JSON object such as '
                f'{{"file": "a.jpg", "labels": ["cat"]}}, got {line.strip()[:50]!r}'
            )
        yield number, found


def _check(objects: Iterable[tuple[int, dict[str, Any]]]) -> list[Row]:
    """Validates what the lines of a list say.

    Raises:
      InputError: that begins with the number of a wrong line; or if there is no picture or class.
    """
    rows: list[Row] = []
    line_of: dict[str, int] = {}
    columns: list[str] = []
    for line, found in objects:
        try:
            here = [name for name in COLUMNS if name in found]
            columns = columns or here
            if here != columns:
                raise InputError(f'expected {_say(columns)} as before, got {_say(here)}')
            rows.append(_check_row(found))
            if (before := line_of.setdefault(rows[-1].file, line)) != line:
                raise InputError(
                    f'{rows[-1].file!r} is in line {before} already; give all labels of a picture '
                    f'in one line'
                )
        except InputError as error:
            raise InputError(f'line {line}: {error}') from None
    if not rows:
        raise InputError('expected pictures, got an empty list')
    if not any(row.labels for row in rows):
        raise InputError('expected labels, but no picture has any')
    return rows


def _check_row(found: dict[str, Any]) -> Row:
    if 'file' not in found or ('label' in found) == ('labels' in found):
        raise InputError(f'expected file and either labels or label, got {_say(found)}')
    labels = found['labels'] if 'labels' in found else [found['label']]
    if not isinstance(labels, list):
        raise InputError(f'expected a list of labels, got {labels!r}')
    texts = {'a file': [found['file']], 'a label': labels, 'a split': [found.get('split', 'train')]}
    for noun, values in texts.items():
        for value in values:
            if not (isinstance(value, str) and value.strip() and value.isprintable()):
                raise InputError(f'expected {noun} as printable text, got {value!r}')
            if value != value.strip():
                raise InputError(f'expected {noun} without spaces around it, got {value!r}')
    split = found.get('split', 'train')
    if not re.fullmatch(r'[\w-]+', split):
        raise InputError(f'expected a split of letters, digits, _ and -, got {split!r}')
    if split == 'all':
        raise InputError('expected a split other than all, which stands for all of them')
    return Row(found['file'], labels, found.get('split'))


def _say(names: Iterable[str]) -> str:
    shown = (name if name and name.isprintable() else repr(name) for name in names)
    return ', '.join(shown) or 'nothing'
