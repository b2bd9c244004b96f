"""Examples as stored, before decoding, and what happens to unusable ones."""

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32, UInt8

from vit_jax.data.picture import MAX_PIXELS, decode_picture
from vit_jax.errors import InputError


class Record(NamedTuple):
    """An example before it is decoded.

    Args:
      picture: content of a picture file; or pixels, uint8 [h, w, c].
      label: the class, 0 to num_classes - 1 is valid; of multi-label data, uint8 [num_classes], 1
        for each class of the picture and 0 for the others.
      name: where to find the example, for messages.
      max_pixels: see `vit_jax.data.picture.decode_picture`.
    """

    picture: bytes | np.ndarray
    label: int | UInt8[np.ndarray, 'k']
    name: str
    max_pixels: int = MAX_PIXELS

    def decode(self) -> UInt8[np.ndarray, 'h w c']:
        """The whole picture."""
        if isinstance(self.picture, bytes):
            return decode_picture(self.picture, self.name, self.max_pixels)
        return self.picture


@runtime_checkable
class Split(Protocol):
    """The records of a split, by index; many threads read it at once.

    `name` says where a record is to be found, without reading it.

    Attributes:
      num_classes: of the data set.
      multi_label: whether an example may have any number of classes, as opposed to exactly one.
      labels: of all records: int32 [n], or uint8 [n, num_classes] if multi-label; None if they are
        known only once each record is read.
      random_access: whether a record can be read without those before it; if not, `load` must be
        called first, which reads them all.
    """

    num_classes: int
    multi_label: bool
    random_access: bool

    @property
    def labels(self) -> Int32[np.ndarray, 'n'] | UInt8[np.ndarray, 'n k'] | None: ...

    def load(self) -> None: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Record: ...
    def name(self, index: int) -> str: ...


def unknown_split(source: str, splits: Iterable[str], got: str) -> InputError:
    """The error for a split that a source does not have, or a slice that cannot be taken."""
    return InputError(
        f'{source}: expected one of the splits {", ".join(sorted(splits))}, a slice of one, or '
        f'all, got {got!r}; data.train_split, data.test_split and --split choose them'
    )


class Reader:
    """Reads and decodes single records.

    Args:
      split: whose records.
      on_error: 'raise', or 'skip' to leave out unusable records.
      max_pixels: of a picture; a larger one is unusable.

    Attributes:
      no_label: a label of zeros: int32 [], or uint8 [num_classes] if multi-label.
      skipped: the reason for each skipped record, by its index in the split.

    Raises:
      InputError: if on_error is anything else.
    """

    def __init__(self, split: Split, on_error: str = 'raise', max_pixels: int = MAX_PIXELS) -> None:
        if on_error not in ('raise', 'skip'):
            raise InputError(f"data.on_error: expected 'raise' or 'skip', got {on_error!r}")
        self._split = split
        self._skip = on_error == 'skip'
        self._max_pixels = max_pixels
        shape, dtype = ((split.num_classes,), 'u1') if split.multi_label else ((), 'i4')
        self.no_label: np.ndarray = np.zeros(shape, dtype)
        self.skipped: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._split)

    @property
    def labels(self) -> Int32[np.ndarray, 'n'] | UInt8[np.ndarray, 'n k'] | None:
        """See `Split`."""
        return self._split.labels

    def read(
        self, index: int, to_pixels: Callable[[Record], np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Pixels and label of one record, which is like `no_label`; None if it is skipped.

        Args:
          to_pixels: record → pixels.

        Raises:
          InputError: if the file cannot be read, is not a picture, or its label is out of range.
        """
        try:
            record = self._split[index]._replace(max_pixels=self._max_pixels)
            label = record.label
            if isinstance(label, int) and not 0 <= label < self._split.num_classes:
                raise InputError(
                    f'{record.name}: expected a label from 0 to {self._split.num_classes - 1}, '
                    f'got {label}'
                )
            return to_pixels(record), np.asarray(label, self.no_label.dtype)
        except InputError as error:
            if not self._skip:
                raise InputError(
                    f'{error}; fix it, or leave such examples out: --config.data.on_error=skip in '
                    f'training, --on-error skip in other commands'
                ) from None
            self.skipped[index] = str(error)
            return None
