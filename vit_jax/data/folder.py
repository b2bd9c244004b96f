"""`folder:PATH`: pictures in folders named after their classes."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from vit_jax.data.batches import Examples
from vit_jax.errors import InputError
from vit_jax.preprocess import read_picture

ENDINGS = ('.jpg', '.jpeg', '.png', '.webp')


class FolderSource:
    """Pictures under PATH/SPLIT/CLASS/, or under PATH/CLASS/.

    With a folder PATH/train, the folders in PATH are the splits. Without one they are the classes,
    and a hash of class and file name puts a tenth of the pictures into 'test' and the others into
    'train', the same wherever the folder lies and whatever else is added to it.

    Attributes:
      class_names: in the order of the labels, that of the alphabet.
      channels: 3; every picture is turned into RGB.

    Raises:
      InputError: where there is no such folder, or classes without pictures, or only outside train.
    """

    channels = 3

    def __init__(self, path: str) -> None:
        self._root = Path(path)
        if not self._root.is_dir():
            raise InputError(f'folder:{path}: no such folder')
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
                    f'folder:{path}: expected the classes of train, got {min(others)!r} in {split}'
                )

    def read(self, split: str, resize: Callable[[Any], np.ndarray]) -> Examples:
        """A whole split, decoded and resized, in memory.

        Args:
          split: folder in PATH, or 'train' or 'test'; TFDS's slices such as 'train[:99%]' too.
          resize: picture → uint8 [h, w, 3].

        Raises:
          InputError: where there is no such split, it is empty, or a picture cannot be read.
        """
        paths, labels = self._examples(split)
        images: np.ndarray | None = None
        with ThreadPoolExecutor() as threads:
            pictures = threads.map(lambda path: resize(read_picture(path)), paths)
            for i, picture in enumerate(pictures):
                if images is None:
                    images = np.empty((len(paths), *picture.shape), np.uint8)
                images[i] = picture
        assert images is not None
        return Examples(images, np.array(labels, np.int32))

    def _examples(self, split: str) -> tuple[list[Path], list[int]]:
        """Paths and labels of a split, in the order of classes and names."""
        examples = {
            name: [
                (path, self.class_names.index(c)) for c, paths in classes.items() for path in paths
            ]
            for name, classes in self._splits.items()
        }
        infos = {
            name: tfds.core.SplitInfo(name=name, shard_lengths=[len(all_)], num_bytes=0)
            for name, all_ in examples.items()
        }
        try:
            parts = tfds.core.ReadInstruction.from_spec(split).to_absolute(infos)
        except ValueError:
            raise InputError(
                f'folder:{self._root}: expected a split out of {", ".join(sorted(infos))} '
                f'or a slice of one, got {split!r}'
            ) from None
        chosen = [x for part in parts for x in examples[part.splitname][part.from_ : part.to]]
        if not chosen:
            raise InputError(f'folder:{self._root}: split {split!r} has no pictures')
        paths, labels = zip(*chosen, strict=True)
        return list(paths), list(labels)


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith('.'))


def _pictures(split: Path) -> dict[str, list[Path]]:
    """Class names and the pictures of each, in order.

    Raises:
      InputError: where there are no classes, or one has no pictures.
    """
    classes = {
        folder.name: sorted(p for p in folder.iterdir() if p.suffix.lower() in ENDINGS)
        for folder in _folders(split)
    }
    if not classes:
        raise InputError(f'{split}: expected a folder for each class in it, but there is none')
    for name, paths in classes.items():
        if not paths:
            raise InputError(f'{split / name}: expected pictures ({", ".join(ENDINGS)}), got none')
    return classes


def _is_test(class_name: str, path: Path) -> bool:
    return hashlib.sha256(f'{class_name}/{path.name}'.encode()).digest()[0] < 26  # of 256
