"""`folder:PATH`: pictures in folders named after their classes."""

import hashlib
import os
from pathlib import Path

import tensorflow_datasets as tfds

from vit_jax.data.picture import read_bytes
from vit_jax.data.records import Record
from vit_jax.errors import InputError

ENDINGS = ('.jpg', '.jpeg', '.png', '.webp')


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


class FolderSource:
    """Pictures under PATH/SPLIT/CLASS/, or under PATH/CLASS/.

    If PATH/train exists, the folders in PATH are the splits. Otherwise they are the classes, and a
    hash of class and file name puts a tenth of the pictures into 'test' and the rest into 'train':
    the same ones wherever the folder lies and whatever else is added to it.

    Attributes:
      name: the SOURCE, 'folder:PATH'.
      class_names: in label order, which is alphabetical.
      channels: 3; every picture is converted to RGB.

    Raises:
      InputError: if the folder is missing or has no classes, a class has no pictures, or a class is
        missing from train.
    """

    channels = 3

    def __init__(self, path: str) -> None:
        self.name = f'folder:{path}'
        self._root = Path(path).expanduser()
        if not self._root.is_dir():
            raise InputError(f'{self.name}: no such folder')
        if (self._root / 'train').is_dir():
            self._splits = {split.name: _pictures(split) for split in _folders(self._root)}
        else:
            pictures = _pictures(self._root)
            self._splits = {
                split: {
                    name: [path for path in paths if _is_test(name, path) == (split == 'test')]
                    for name, paths in pictures.items()
                }
                for split in ('train', 'test')
            }
        self.class_names = list(self._splits['train'])
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
          split: a folder in PATH, or 'train' or 'test'; or a TFDS slice such as 'train[:99%]'.

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
            raise InputError(
                f'{self.name}: expected one of the splits {", ".join(sorted(infos))}, or a slice '
                f'of one (data.train_split, data.test_split), got {split!r}'
            ) from None
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


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith('.'))


def _pictures(split: Path) -> dict[str, list[str]]:
    """Class names and the pictures of each, both sorted.

    Raises:
      InputError: if there are no classes, or one has no pictures or an unprintable name.
    """
    classes = {
        folder.name: sorted(
            entry.path
            for entry in os.scandir(folder)
            if os.path.splitext(entry.name)[1].lower() in ENDINGS
        )
        for folder in _folders(split)
    }
    if unprintable := [name for name in classes if not name.isprintable()]:
        raise InputError(f'{split}: expected printable class names, got {unprintable[0]!r}')
    if not classes:
        raise InputError(f'{split}: expected a folder for each class, got none')
    for name, paths in classes.items():
        if not paths:
            raise InputError(
                f'{split / name}: expected pictures ({", ".join(ENDINGS)}), got none; '
                f'add some, or remove the folder'
            )
    return classes


def _is_test(class_name: str, path: str) -> bool:
    return _digest(class_name, path)[0] < 26  # of 256


def _digest(class_name: str, path: str) -> bytes:
    """A picture's random bytes, the same wherever the folder lies."""
    return hashlib.sha256(os.fsencode(f'{class_name}/{os.path.basename(path)}')).digest()
