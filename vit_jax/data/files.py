"""Labelled picture files in splits: what `folder:PATH` and lists of files have in common."""

import dataclasses
import hashlib
import os
from collections import defaultdict
from functools import cached_property
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int32, UInt8

from vit_jax.data.picture import read_bytes
from vit_jax.data.records import Record, unknown_split
from vit_jax.errors import InputError


class Example(NamedTuple):
    """A picture file.

    Args:
      path: of the file.
      labels: its classes; exactly one unless the data is multi-label.
      key: that is hashed to choose splits and slices: a name that stays when the data moves.
    """

    path: str
    labels: tuple[int, ...]
    key: str


class FileSplit:
    """The pictures of a split, see `vit_jax.data.records.Split`."""

    random_access = True

    def __init__(self, examples: list[Example], num_classes: int, multi_label: bool) -> None:
        self._examples = examples
        self.num_classes = num_classes
        self.multi_label = multi_label

    def load(self) -> None:
        """Does nothing: each file is read when it is due."""

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Record:
        path = self._examples[index].path
        return Record(read_bytes(path), self._label(index), path)

    def name(self, index: int) -> str:
        """See `vit_jax.data.records.Split`."""
        return self._examples[index].path

    @cached_property
    def labels(self) -> Int32[np.ndarray, 'n'] | UInt8[np.ndarray, 'n k']:
        """See `vit_jax.data.records.Split`."""
        dtype = np.uint8 if self.multi_label else np.int32
        return np.array([self._label(index) for index in range(len(self))], dtype)

    def _label(self, index: int) -> int | UInt8[np.ndarray, 'k']:
        labels = self._examples[index].labels
        if not self.multi_label:
            return labels[0]
        label = np.zeros(self.num_classes, np.uint8)
        label[list(labels)] = 1
        return label


@dataclasses.dataclass(frozen=True)
class FileSource:
    """Labelled picture files in splits.

    Args:
      name: the SOURCE.
      splits: the examples of each, in the order in which they are read.
      class_names: in label order, which is alphabetical.
      multi_label: whether an example may have any number of classes, as opposed to exactly one.
      notes: messages on what was left out.

    Attributes:
      channels: 3; every picture is converted to RGB.
    """

    name: str
    splits: dict[str, list[Example]]
    class_names: list[str]
    multi_label: bool
    notes: list[str]
    channels = 3

    def __post_init__(self) -> None:
        if len(self.class_names) < 2 and not self.multi_label:
            self.notes.append(f'{self.name}: only one class, so there is nothing to tell apart')

    def prepare(self, manual_dir: str | None = None) -> str:
        """Does nothing, and says so."""
        return 'pictures need no preparation'

    def open(self, split: str) -> FileSplit:
        """The pictures of a split.

        Args:
          split: its name; a TFDS slice such as 'train[:99%]'; or 'all'.

        Raises:
          InputError: if there is no such split, or it is empty.
        """
        infos = {
            name: tfds.core.SplitInfo(name=name, shard_lengths=[len(examples)], num_bytes=0)
            for name, examples in self.splits.items()
        }
        try:
            parts = tfds.core.ReadInstruction.from_spec(split).to_absolute(infos)
        except (ValueError, NotImplementedError):  # such as for 'all[:80%]'
            raise unknown_split(self.name, infos, split) from None
        chosen: list[Example] = []
        for part in parts:
            # A slice is taken in a fixed random order, then put into the split's own order again.
            examples = self.splits[part.splitname]
            shuffled = sorted(range(len(examples)), key=lambda i: _digest(examples[i]))
            chosen += [examples[i] for i in sorted(shuffled[part.from_ : part.to])]
        if not chosen:
            raise InputError(f'{self.name}: split {split!r} has no pictures')
        return FileSplit(chosen, len(self.class_names), self.multi_label)


def split_by_hash(examples: list[Example]) -> dict[str, list[Example]]:
    """Puts a tenth of the examples into 'test', by the hashes of their keys, the rest into 'train'.

    They are the same ones wherever the data lies and whatever else is added to it. Few examples
    whose hashes would leave a split empty give it one of each group that has two or more: the one
    of the lowest hash to 'test', or of the highest to 'train'. As such data grows, a test picture
    may yet become a training picture; from the first one that its own hash puts into 'test', no
    picture moves any more. A class is a group; so are all examples with no label or several.
    """
    groups = defaultdict(list)
    for index in sorted(range(len(examples)), key=lambda i: _digest(examples[i])):
        labels = examples[index].labels
        groups[labels if len(labels) == 1 else None].append(index)
    num_test = {
        group: sum(_digest(examples[i])[0] < 26 for i in members)  # of 256
        for group, members in groups.items()
    }
    if not any(num_test.values()):
        num_test = {group: min(1, len(members) - 1) for group, members in groups.items()}
    elif all(num_test[group] == len(members) for group, members in groups.items()):
        num_test = {group: max(1, len(members) - 1) for group, members in groups.items()}
    test = {index for group, members in groups.items() for index in members[: num_test[group]]}
    return {
        'train': [example for i, example in enumerate(examples) if i not in test],
        'test': [example for i, example in enumerate(examples) if i in test],
    }


def _digest(example: Example) -> bytes:
    """An example's random bytes."""
    return hashlib.sha256(os.fsencode(example.key)).digest()
