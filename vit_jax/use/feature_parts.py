"""The parts of an extraction of features that is under way, as files in a folder.

A part counts as long as the folder was made with the same (weights, preprocessing, devices), and
its pictures are the same.
"""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax.errors import InputError
from vit_jax.run.json_files import read_json, write_json
from vit_jax.run.storage import list_folder, remove
from vit_jax.use.predict import BATCH_SIZES

PART = 8 * BATCH_SIZES[-1]  # pictures; whole batches, so that resuming changes no batch
STATE = 'extraction.json'  # what the parts of a folder were computed with


def part_ranges(num_pictures: int) -> list[range]:
    """The indices of the pictures in each part."""
    starts = range(0, num_pictures, PART)
    return [range(start, min(start + PART, num_pictures)) for start in starts]


def open_folder(folder: Path, state: dict[str, Any], report: Callable[[str], None]) -> None:
    """Makes a folder of parts, or empties it if they were computed with anything else.

    Args:
      report: takes a line that says so.

    Raises:
      InputError: if there is a folder of that name with anything else in it.
    """
    strange = [path.name for path in list_folder(folder) if not path.name.startswith(STATE)]
    if strange and not (folder / STATE).is_file():
        raise InputError(
            f'{folder}: expected no such folder, or one that an interrupted extraction has left, '
            f'but {min(strange)} is in it; move it away'
        )
    if (folder / STATE).is_file():
        try:
            found = as_json(read_json(folder / STATE))
        except InputError:
            found = {}
        if found == state:
            return
        changed = ', '.join(name for name in state if found.get(name) != state[name])
        report(f'{folder}: other {changed.replace("_", " ")}: starting again')
        remove(folder)
    folder.mkdir(exist_ok=True)
    write_json(folder / STATE, state)


def write_arrays(path: Path, arrays: dict[str, Any], folder: Path) -> None:
    """Writes arrays, whole or not at all, by way of a file in a folder of the same disk."""
    temporary = folder / f'{os.getpid()}.tmp'
    with temporary.open('wb') as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_part(path: Path, stamp: str, rows: range, on_error: str) -> dict[str, np.ndarray] | None:
    """A stored part; None if it is missing, damaged, of other pictures, or may lack some."""
    try:
        with path.open('rb') as file, np.load(file, allow_pickle=False) as arrays:
            part = dict(arrays)
        same = str(part.pop('stamp')) == stamp
        whole = on_error == 'skip' or len(part['kept']) == len(rows)
        return part if same and whole else None
    except Exception:  # whatever zipfile and NumPy raise
        return None


def stamp_of(names: list[str]) -> str:
    """Identifies pictures by their names and, of files, by their sizes and times of change."""
    stamps = []
    for name in names:
        try:
            status = os.stat(name)
            stamps.append(f'{name} {status.st_size} {status.st_mtime_ns}')
        except (OSError, ValueError):  # an example of a TFDS data set, or a file that is not there
            stamps.append(name)
    return hash_of(stamps)


def hash_of(content: bytes | list[str]) -> str:
    if isinstance(content, list):
        content = b'\0'.join(os.fsencode(text) for text in content)
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def as_json(content: dict[str, Any]) -> dict[str, Any]:
    """An object as it is after writing and reading it: tuples are lists."""
    parsed: dict[str, Any] = json.loads(json.dumps(content))
    return parsed
