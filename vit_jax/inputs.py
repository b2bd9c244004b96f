"""What a run sees: the examples of its splits, their order, the augmentation of its step."""

from functools import partial
from typing import Any

from vit_jax.augment import augment
from vit_jax.data import Examples, FolderSource, Stream, TfdsSource, TrainOrder, open_split
from vit_jax.preprocess import Preprocessing


def open_examples(
    config: Any, source: TfdsSource | FolderSource, split: str, preprocessing: Preprocessing
) -> Examples | Stream:
    """A split of the source that a config names.

    Raises:
      InputError: see `vit_jax.data.open_split`.
    """
    return open_split(
        source,
        split,
        preprocessing,
        memory_gib=config.data.memory_gib,
        on_error=config.data.on_error,
        min_area=config.augment.random_resized_crop,
    )


def train_order(config: Any, num_examples: int, rows: range) -> TrainOrder:
    """The order in which a config's run visits its examples.

    Args:
      rows: of each batch, that this process reads.

    Raises:
      InputError: where the repeats do not divide the batch.
    """
    return TrainOrder(num_examples, config.batch_size, rows, config.seed, config.data.repeats)


def augmentation(
    config: Any, examples: Examples | Stream, num_classes: int, axis_name: str | None
) -> Any:
    """`augment` as a config's training step calls it.

    Args:
      examples: of the training split.
      num_classes: of the data set.
      axis_name: see `augment`.
    """
    options = dict(config.augment)
    if isinstance(examples, Stream):
        options['random_resized_crop'] = 0.0  # done, on the original pictures
    return partial(augment, num_classes=num_classes, axis_name=axis_name, **options)
