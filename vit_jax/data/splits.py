"""The two splits of a run."""

from typing import NamedTuple

from vit_jax.data.memory import InMemory
from vit_jax.data.stream import Stream


class Splits(NamedTuple):
    """The training and the test split of a run.

    Args:
      train, test: the examples of each.
    """

    train: InMemory | Stream
    test: InMemory | Stream

    def __str__(self) -> str:
        return f'{self.train} to train on, {self.test} to test'

    @property
    def num_examples(self) -> dict[str, int]:
        """The number of examples in each split."""
        return {'train': self.train.num_examples, 'test': self.test.num_examples}

    @property
    def notes(self) -> list[str]:
        """A warning if the test split is too small to tell two models apart."""
        if (count := self.test.num_examples) >= 10:
            return []
        return [
            f'few pictures to test on: each is {1 / count:.0%} of the test accuracy; for more, set '
            f"data.train_split='train[:75%]' and data.test_split='train[75%:]'"
        ]

    @property
    def skipped(self) -> dict[str, dict[int, str]]:
        """The reason for each skipped example, by its index in its split."""
        return {'train': self.train.skipped, 'test': self.test.skipped}
