"""Class folders: their pictures, what else is in them, and what is wrong with them."""

import os
from pathlib import Path
from typing import NamedTuple

from vit_jax.data.picture import ENDINGS
from vit_jax.errors import InputError

OF_SYSTEMS = ('desktop.ini', 'Thumbs.db')  # what Windows writes into folders of pictures
SPLITS = ('test', 'train', 'training', 'val', 'valid', 'validation')  # names that no class has


class Entries(NamedTuple):
    """What is in a folder, but for hidden files and those that systems write.

    Args:
      pictures: paths of files with the ending of a picture, sorted.
      folders: sorted.
      others: paths of all other files.
    """

    pictures: list[str]
    folders: list[Path]
    others: list[str]


def list_folder(folder: str | os.PathLike[str]) -> Entries:
    """The entries of a folder.

    Raises:
      InputError: if it cannot be read.
    """
    entries = Entries([], [], [])
    try:
        with os.scandir(folder) as found:
            for entry in found:
                if entry.name.startswith('.') or entry.name in OF_SYSTEMS:
                    continue
                if entry.is_dir():
                    entries.folders.append(Path(entry.path))
                elif _ending(entry.path) in ENDINGS:
                    entries.pictures.append(entry.path)
                else:
                    entries.others.append(entry.path)
    except OSError as error:
        raise InputError(f'{folder}: the folder cannot be read: {error.strerror}') from None
    entries.pictures.sort()
    entries.folders.sort()
    return entries


def list_classes(folder: Path, is_split: bool) -> tuple[dict[str, list[str]], list[str]]:
    """The classes of a folder that holds one folder for each.

    Args:
      folder: of the classes.
      is_split: whether it is that of a split, as opposed to all of a data set.

    Returns:
      Class names and the pictures of each, both sorted; and notes on what was left out.

    Raises:
      InputError: if there are no classes, or one has no pictures or an unprintable name.
    """
    top = list_folder(folder)
    classes = {path.name: list_folder(path) for path in top.folders}
    if unprintable := [name for name in classes if not name.isprintable()]:
        raise InputError(f'{folder}: expected printable class names, got {unprintable[0]!r}')
    if not classes:
        got = 'none'
        if top.pictures:
            got = f'{top.pictures[0]}; move the pictures of each class into a folder of its name'
        raise InputError(f'{folder}: expected a folder for each class, got {got}')
    for name, entries in classes.items():
        if not entries.pictures:
            raise InputError(_no_pictures(folder / name, entries, list(classes), is_split))
    notes = []
    if others := [path for entries in classes.values() for path in entries.others]:
        endings = sorted({_ending(path) or 'no ending' for path in others})
        notes.append(f'{_count(others, "file")} left out: {", ".join(endings)}')
    if top.pictures:
        notes.append(f'{_count(top.pictures, "picture")} outside the class folders left out')
    if inner := [path for entries in classes.values() for path in entries.folders]:
        notes.append(f'{_count(inner, "folder")} inside class folders left out: {inner[0]}')
    return {name: entries.pictures for name, entries in classes.items()}, notes


def _no_pictures(folder: Path, entries: Entries, names: list[str], is_split: bool) -> str:
    """What is wrong with a class folder that has no pictures, and what to do."""
    if deeper := _first_picture(entries):
        if not is_split and folder.name.lower() in SPLITS:
            return (
                f'{folder.parent}: expected the splits train and test, got {", ".join(names)}; '
                f'name the folder to train on train, or evaluate on folder:{folder} with split all'
            )
        message = f'{folder}: expected pictures directly in this class folder, got {deeper}'
        if is_split:
            return f'{message}; move them up'
        data_set = deeper.parents[1]
        if (data_set.parent / 'train').is_dir():
            data_set = data_set.parent
        return f'{message}; move them up, or give folder:{data_set} if that is the data set'
    expected = f'{folder}: expected pictures (.jpg, .png, .webp, …)'
    if entries.others:
        endings = sorted({_ending(path) or 'files without ending' for path in entries.others})
        return f'{expected}, got only {", ".join(endings)}; convert them, or remove the folder'
    return f'{expected}, got none; add some, or remove the folder'


def _first_picture(entries: Entries) -> Path | None:
    """The first picture in the folders below."""
    for folder in entries.folders:
        below = list_folder(folder)
        if first := Path(below.pictures[0]) if below.pictures else _first_picture(below):
            return first
    return None


def _ending(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _count(things: list, name: str) -> str:
    return f'{len(things):,} {name}{"s" if len(things) > 1 else ""}'
