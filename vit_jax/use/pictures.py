"""From what a user names to picture files: files, folders, patterns and standard input."""

import glob
import itertools
import os
import sys
from collections.abc import Iterable, Iterator

from vit_jax.data.class_folders import list_folder
from vit_jax.data.picture import ENDINGS
from vit_jax.errors import InputError


def find_pictures(paths: Iterable[str]) -> Iterator[str]:
    """The picture files that paths stand for, found as they are asked for.

    Args:
      paths: each one of
        a file, of any ending;
        a folder, for the pictures in it, then those in its folders, each sorted;
        a pattern with `*`, `?` or `[]`, where `**` is any number of folders, for the pictures that
          match it, sorted; a file of that very name goes first;
        `-`, for the paths of files on standard input, one a line.

    Returns:
      An iterator over paths. Hidden files are left out, and so are files with other endings than
      a picture's, except where they are named.

    Raises:
      InputError: at once, if there is no such file or folder, a folder has no pictures, or nothing
        matches a pattern; on the way, if a folder inside cannot be read.
    """
    return itertools.chain.from_iterable([_find(path) for path in paths])


def _find(path: str) -> Iterable[str]:
    if path == '-':
        lines = (line.rstrip(b'\r\n') for line in sys.stdin.buffer)
        return (os.fsdecode(line) for line in lines if line)
    if os.path.isdir(path):
        below = _below(path, set())
        if (first := next(below, None)) is None:
            raise InputError(f'{path}: expected pictures (.jpg, .png, .webp, …) in it, got none')
        return itertools.chain([first], below)
    if os.path.lexists(path):
        return [path]
    if not glob.has_magic(path):
        raise InputError(f'{path}: no such file or folder')
    found = sorted(glob.iglob(path, recursive=True))
    pictures = [name for name in found if os.path.splitext(name)[1].lower() in ENDINGS]
    if not pictures:
        raise InputError(f'{path}: expected a pattern of pictures, but none matches')
    return pictures


def _below(folder: str, seen: set[str]) -> Iterator[str]:
    """The pictures in a folder and in the folders below, where links may lead in circles."""
    if (real := os.path.realpath(folder)) not in seen:
        seen.add(real)
        entries = list_folder(folder)
        yield from entries.pictures
        for inner in entries.folders:
            yield from _below(os.fspath(inner), seen)
