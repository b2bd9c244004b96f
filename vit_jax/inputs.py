"""What a run sees: the splits of its data, their order, and the augmentation of its step."""

from functools import partial
from typing import Any, NamedTuple

from vit_jax.augment import augment
from vit_jax.data import (
    Examples,
    FolderSource,
    Stream,
    TfdsSource,
    TrainOrder,
    open_split,
)
from vit_jax.preprocess import Preprocessing


class Inputs(NamedTuple):
    """What a run reads.

    Args:
      train, test: examples of the splits.
      order: of the training examples.
    """

    train: Examples | Stream
    test: Examples | Stream
    order: TrainOrder


def open_inputs(
    config: Any, source: TfdsSource | FolderSource, preprocessing: Preprocessing, rows: range
) -> Inputs:
    """Opens the splits of a config.

    Args:
      source: that the config names.
      preprocessing: of every picture.
      rows: of each training batch, that this process reads.

    Raises:
      InputError: see `vit_jax.data.open_split`.
    """
    options: dict[str, Any] = {name: config.data[name] for name in ('memory_gib', 'on_error')}
    options['min_area'] = config.augment.random_resized_crop
    train, test = (
        open_split(source, split, preprocessing, **options)
        for split in (config.data.train_split, config.data.test_split)
    )
    order = TrainOrder(
        train.num_examples, config.batch_size, rows, config.seed, config.data.repeats
    )
    return Inputs(train, test, order)


def augmentation(config: Any, data: Inputs, num_classes: int, axis_name: str | None) -> Any:
    """The `augment` of a config's training step."""
    options = dict(config.augment)
    if isinstance(data.train, Stream):
        options['random_resized_crop'] = 0.0  # done, on the original pictures
    return partial(augment, num_classes=num_classes, axis_name=axis_name, **options)
