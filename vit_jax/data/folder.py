"""`folder:PATH`: pictures in folders named after their classes."""

import os
from pathlib import Path

from vit_jax.data.class_folders import list_classes, list_folder
from vit_jax.data.files import Example, FileSource, split_by_hash
from vit_jax.errors import InputError


def open_folder(path: str) -> FileSource:
    """Pictures under PATH/SPLIT/CLASS/, or under PATH/CLASS/; each split by class and name.

    If PATH/train exists, the folders in PATH are the splits. Otherwise they are the classes, and a
    hash of class and file name chooses the test split, see `split_by_hash`.

    Raises:
      InputError: if the folder is missing or has no classes, a class has no pictures, or a class is
        missing from train.
    """
    name, root = f'folder:{path}', Path(os.path.expanduser(path))
    if not root.is_dir():
        raise InputError(f'{name}: no such folder: {root.absolute()}')
    has_splits = (root / 'train').is_dir()
    folders = list_folder(root).folders if has_splits else [root]
    listed = {folder: list_classes(folder, has_splits) for folder in folders}
    classes_of = {folder.name: classes for folder, (classes, _) in listed.items()}
    class_names = list(classes_of['train' if has_splits else root.name])
    if 'all' in classes_of and has_splits:
        raise InputError(f'{root / "all"}: rename this split; all stands for all of them')
    for split, classes in classes_of.items():
        if others := classes.keys() - set(class_names):
            raise InputError(
                f'{name}: expected the classes of train, got {min(others)!r} in {split}'
            )
    labels = {c: (label,) for label, c in enumerate(class_names)}
    splits = {
        split: [
            Example(path, labels[c], f'{c}/{os.path.basename(path)}')
            for c, paths in classes.items()
            for path in paths
        ]
        for split, classes in classes_of.items()
    }
    if not has_splits:
        splits = split_by_hash(splits[root.name])
    notes = [f'{folder}: {note}' for folder, (_, notes) in listed.items() for note in notes]
    return FileSource(name, splits, class_names, False, notes)
