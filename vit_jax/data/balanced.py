"""Class-balanced batches, still a pure function of (seed, step).

The endless sequence of `vit_jax.data.order` consists of rounds instead of epochs: each round has
one example of each class, in a random order. A class deals out its examples in a random order,
each once, then in another, and so on, however many passes the others have made.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
from jaxtyping import Int32, Int64

from vit_jax.data.memory import InMemory
from vit_jax.data.order import TrainOrder, random_bits
from vit_jax.data.stream import Stream
from vit_jax.errors import InputError

# The fourth of the seeds tells these random numbers from those of epochs and crops, which have
# fewer, as if followed by zeros.
MEMBERS, CLASSES = 1, 2


def create_order(
    sampling: str,
    examples: InMemory | Stream,
    batch_size: int,
    rows: range,
    seed: int,
    repeats: int = 1,
) -> TrainOrder:
    """The order of a training split.

    Args:
      sampling: 'uniform' for each example once an epoch, 'balanced' for each class equally often.
      examples: of the split.
      batch_size, rows, seed, repeats: see `TrainOrder`.

    Raises:
      InputError: if `sampling` is unknown or cannot balance these examples, or repeats does not
        divide batch_size.
    """
    if sampling == 'uniform':
        return TrainOrder(examples.num_examples, batch_size, rows, seed, repeats)
    if sampling != 'balanced':
        raise InputError(f"data.sampling: expected 'uniform' or 'balanced', got {sampling!r}")
    if examples.multi_label:
        raise InputError(
            "data.sampling='balanced': expected one label per picture, got multi-label data; "
            "loss.class_weights='balanced' balances it"
        )
    common = examples.num_examples, batch_size, rows, seed, repeats
    return BalancedOrder(*common, labels=examples.labels)


@dataclasses.dataclass(frozen=True)
class BalancedOrder(TrainOrder):
    """A `TrainOrder` in which every class comes up equally often.

    Args:
      labels: the class of each example.
    """

    labels: Int32[np.ndarray, 'num_examples'] = dataclasses.field(kw_only=True)

    def _at(self, places: Int64[np.ndarray, 'rows']) -> Int64[np.ndarray, 'rows']:
        """The examples at these places of the endless sequence."""
        classes = self._classes
        rounds, turns = np.divmod(places, len(classes))
        indices = np.empty(len(places), np.int64)
        for round_ in np.unique(rounds).tolist():
            bits = random_bits(len(classes), self.seed, round_, 0, CLASSES)
            order = np.argsort(bits, kind='stable').tolist()
            for row in np.flatnonzero(rounds == round_):
                which = order[turns[row]]
                number, offset = divmod(round_, len(classes[which]))
                indices[row] = classes[which][self._pass_order(number, which)[offset]]
        return indices

    @functools.cached_property
    def _classes(self) -> list[Int64[np.ndarray, 'members']]:
        """The examples of each class that has any."""
        by_class = np.argsort(self.labels, kind='stable')
        return np.split(by_class, np.flatnonzero(np.diff(self.labels[by_class])) + 1)

    @functools.cached_property
    def _pass_order(self) -> Callable[[int, int], Int64[np.ndarray, 'members']]:
        """(pass, class) → the order of its members; remembers about two passes of all classes."""

        @functools.lru_cache(maxsize=2 * len(self._classes))
        def pass_order(number: int, which: int) -> Int64[np.ndarray, 'members']:
            bits = random_bits(len(self._classes[which]), self.seed, number, which, MEMBERS)
            return np.argsort(bits, kind='stable')

        return pass_order
