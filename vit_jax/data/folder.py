"""`folder:PATH`: pictures in folders named after their classes."""

import hashlib
import os
from functools import partial
from pathlib import Path

import tensorflow_datasets as tfds

from vit_jax.data.class_folders import list_classes, list_folder
from vit_jax.data.picture import read_bytes
from vit_jax.data.records import Record, unknown_split
from vit_jax.errors import InputError


class FolderSplit:
    """The pictures of a split, see `vit_jax.data.records.Split`."""

    random_access = True

    def __init__(self, paths: list[str], labels: list[int], num_classes: int) -> None:
        self._paths = paths
        self._labels = labels
        self.num_classes = num_classes

    def load(self) -> None:
        """Does nothing: each file is read when it is due."""

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Record:
        path = self._paths[index]
        return Record(read_bytes(path), self._labels[index], path)

    def name(self, index: int) -> str:
        """See `vit_jax.data.records.Split`."""
        return self._paths[index]


class FolderSource:
    """Pictures under PATH/SPLIT/CLASS/, or under PATH/CLASS/.

    If PATH/train exists, the folders in PATH are the splits. Otherwise they are the classes, and a
    hash of class and file name puts a tenth of the pictures into 'test' and the rest into 'train':
    the same ones wherever the folder lies and whatever else is added to it. A small folder whose
    hashes would leave a split empty gives it one picture of each class that has two or more: the
    one of the lowest hash to 'test', or of the highest to 'train'. As such a folder grows, a test
    picture may yet become a training picture; from the first one that its own hash puts into
    'test', no picture moves any more.

    Attributes:
      name: the SOURCE, 'folder:PATH'.
      class_names: in label order, which is alphabetical.
      channels: 3; every picture is converted to RGB.
      notes: messages on what was left out.

    Raises:
      InputError: if the folder is missing or has no classes, a class has no pictures, or a class is
        missing from train.
    """

    channels = 3

    def __init__(self, path: str) -> None:
        self.name = f'folder:{path}'
        self._root = Path(path).expanduser()
        if not self._root.is_dir():
            raise InputError(f'{self.name}: no such folder: {self._root.absolute()}')
        has_splits = (self._root / 'train').is_dir()
        folders = list_folder(self._root).folders if has_splits else [self._root]
        listed = {folder: list_classes(folder, has_splits) for folder in folders}
        if has_splits:
            self._splits = {folder.name: classes for folder, (classes, _) in listed.items()}
        else:
            self._splits = _split_by_hash(listed[self._root][0])
        self.notes = [
            f'{folder}: {note}' for folder, (_, notes) in listed.items() for note in notes
        ]
        self.class_names = list(self._splits['train'])
        if len(self.class_names) < 2:
            self.notes.append(f'{self.name}: only one class, so there is nothing to tell apart')
        if 'all' in self._splits:
            raise InputError(f'{self._root / "all"}: rename this split; all stands for all of them')
        for split, classes in self._splits.items():
            if others := classes.keys() - set(self.class_names):
                raise InputError(
                    f'{self.name}: expected the classes of train, got {min(others)!r} in {split}'
                )

    def prepare(self, manual_dir: str | None = None) -> str:
        """Does nothing, and says so."""
        return 'pictures need no preparation'

    def open(self, split: str) -> FolderSplit:
        """The pictures of a split, sorted by class and name.

        Args:
          split: a folder in PATH, or 'train' or 'test'; a TFDS slice such as 'train[:99%]'; or
            'all'.

        Raises:
          InputError: if there is no such split, or it is empty.
        """
        label = {name: i for i, name in enumerate(self.class_names)}
        examples = {
            name: [(path, label[c]) for c, paths in classes.items() for path in paths]
            for name, classes in self._splits.items()
        }
        infos = {
            name: tfds.core.SplitInfo(name=name, shard_lengths=[len(all_)], num_bytes=0)
            for name, all_ in examples.items()
        }
        try:
            parts = tfds.core.ReadInstruction.from_spec(split).to_absolute(infos)
        except (ValueError, NotImplementedError):  # such as for 'all[:80%]'
            raise unknown_split(self.name, infos, split) from None
        chosen = []
        for part in parts:
            # A slice is taken in a fixed random order, then sorted by class again.
            shuffled = sorted(
                examples[part.splitname], key=lambda x: _digest(self.class_names[x[1]], x[0])
            )
            chosen += sorted(shuffled[part.from_ : part.to], key=lambda x: (x[1], x[0]))
        if not chosen:
            raise InputError(f'{self.name}: split {split!r} has no pictures')
        paths, labels = zip(*chosen, strict=True)
        return FolderSplit(list(paths), list(labels), len(self.class_names))


def _split_by_hash(pictures: dict[str, list[str]]) -> dict[str, dict[str, list[str]]]:
    """Splits → class names → pictures, see `FolderSource`."""
    by_hash = {name: sorted(paths, key=partial(_digest, name)) for name, paths in pictures.items()}
    num_test = {
        name: sum(_digest(name, path)[0] < 26 for path in paths)  # of 256
        for name, paths in by_hash.items()
    }
    if not any(num_test.values()):
        num_test = {name: min(1, len(paths) - 1) for name, paths in by_hash.items()}
    elif all(num_test[name] == len(paths) for name, paths in by_hash.items()):
        num_test = {name: max(1, len(paths) - 1) for name, paths in by_hash.items()}
    return {
        'train': {name: sorted(paths[num_test[name] :]) for name, paths in by_hash.items()},
        'test': {name: sorted(paths[: num_test[name]]) for name, paths in by_hash.items()},
    }


def _digest(class_name: str, path: str) -> bytes:
    """A picture's random bytes, the same wherever the folder lies."""
    return hashlib.sha256(os.fsencode(f'{class_name}/{os.path.basename(path)}')).digest()
