"""One example as its source has it, and what becomes of one that cannot be used."""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from vit_jax.data.picture import decode_picture
from vit_jax.errors import InputError


class Record(NamedTuple):
    """An example before it is decoded.

    Args:
      picture: content of a picture file; or pixels, uint8 [h, w, c].
      label: the class, expected from 0 to the number of classes - 1.
      name: for messages: where the example is to be found.
    """

    picture: bytes | np.ndarray
    label: int
    name: str

    def decode(self) -> UInt8[np.ndarray, 'h w c']:
        """The whole picture."""
        if isinstance(self.picture, bytes):
            return decode_picture(self.picture, self.name)
        return self.picture


@runtime_checkable
class Split(Protocol):
    """The records of a split, by their places in it; read from many threads at once.

    Attributes:
      num_classes: of the data set.
      random_access: whether a record can be had without reading those before it; otherwise `load`
        reads all, which has to come first.
    """

    num_classes: int
    random_access: bool

    def load(self) -> None: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Record: ...


class Reader:
    """Reads and decodes single records.

    Args:
      split: whose records.
      on_error: 'raise', or 'skip' for going on without those that cannot be used.

    Attributes:
      skipped: what was wrong with those, by their places in the split.

    Raises:
      InputError: where on_error is something else.
    """

    def __init__(self, split: Split, on_error: str = 'raise') -> None:
        if on_error not in ('raise', 'skip'):
            raise InputError(f"data.on_error: expected 'raise' or 'skip', got {on_error!r}")
        self._split = split
        self._skip = on_error == 'skip'
        self.skipped: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._split)

    def read(
        self, index: int, to_pixels: Callable[[Record], np.ndarray]
    ) -> tuple[np.ndarray, int] | None:
        """Pixels and label of one record; None where it is left out.

        Args:
          to_pixels: what to make of the record's picture.

        Raises:
          InputError: where the file cannot be read, is no picture, or its label is out of range.
        """
        try:
            record = self._split[index]
            if not 0 <= record.label < self._split.num_classes:
                raise InputError(
                    f'{record.name}: expected a label from 0 to {self._split.num_classes - 1}, '
                    f'got {record.label}'
                )
            return to_pixels(record), record.label
        except InputError as error:
            if not self._skip:
                raise InputError(
                    f"{error}; mend it, or leave such examples out with data.on_error='skip'"
                ) from None
            self.skipped[index] = str(error)
            return None
