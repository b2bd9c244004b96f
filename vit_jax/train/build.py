"""From a config to objects: the only place, beside the loop, that reads options."""

import dataclasses
import math
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import optax

from vit_jax.augment.augment import augment
from vit_jax.data.folder import FolderSource
from vit_jax.data.memory import InMemory
from vit_jax.data.order import TrainOrder
from vit_jax.data.preprocess import Preprocessing
from vit_jax.data.sources import open_split
from vit_jax.data.stream import Stream
from vit_jax.data.tfds import TfdsSource
from vit_jax.errors import InputError
from vit_jax.model.arguments import stored_arguments
from vit_jax.model.shapes import abstract_variables, pair
from vit_jax.model.variants import DEFAULT_SIZES, variant_arguments
from vit_jax.model.vit import ViT
from vit_jax.run.json_files import read_json
from vit_jax.train.optim import (
    create_optimizer,
    learning_rate_factors,
    learning_rate_schedule,
    stop_frozen,
)
from vit_jax.train.step import Learner
from vit_jax.weights.reading import Weights, read_weights


class Start(NamedTuple):
    """The model that a run starts from, and what it sees.

    Args:
      model: for the classes of the data.
      params: initial parameters from weights; None to draw them, or to restore a checkpoint.
      preprocessing: of every picture.
      notes: what was resized, dropped or newly initialised of the weights.
    """

    model: ViT
    params: Any
    preprocessing: Preprocessing
    notes: list[str]


def find_start(config: Any, class_names: list[str], channels: int, resumed: Path | None) -> Start:
    """The model that a config asks for.

    Args:
      config: with `init`, `model` and `data`.
      class_names: of the data.
      channels: of the data's pictures.
      resumed: the run directory, if it has a checkpoint to resume from.

    Raises:
      InputError: if an option is wrong, or the weights do not fit.
    """
    if config.init.weights and resumed:  # the weights may be gone, and are no longer needed
        description = read_json(resumed / 'description.json')
        preprocessing = Preprocessing(**description['preprocessing'])
        arguments = description['model'] | model_arguments(config.model)
        return Start(ViT(**arguments), None, preprocessing, [])
    if config.init.weights:
        return _from_weights(config, class_names)
    data = config.data
    for name in ('image_size', 'mean', 'std', 'crop_fraction'):
        if data[name] is None:
            raise InputError(
                f'init.weights: expected a run directory or a weight file, got none, and '
                f'data.{name} is unset too'
            )
    size = pair(data.image_size)
    preprocessing = Preprocessing(size, channels, data.mean, data.std, data.crop_fraction)
    model = ViT(
        **DEFAULT_SIZES | model_arguments(config.model),
        image_size=size,
        num_classes=len(class_names),
        channels=channels,
    )
    return Start(model, None, preprocessing, [])


def model_arguments(model: Any) -> dict[str, Any]:
    """The arguments of `ViT` that a config sets: the variant's, and whatever else is not None.

    Args:
      model: `config.model`.

    Raises:
      InputError: if there is no such variant.
    """
    arguments = {name: value for name, value in model.items() if value is not None}
    variant = arguments.pop('variant', None)
    return (variant_arguments(variant) if variant else {}) | arguments


def describe(start: Start, class_names: list[str]) -> dict[str, Any]:
    """What using the result takes, for `description.json`."""
    return {
        'model': stored_arguments(start.model),
        'preprocessing': dataclasses.asdict(start.preprocessing),
        'class_names': class_names,
    }


def open_examples(
    config: Any, source: TfdsSource | FolderSource, split: str, preprocessing: Preprocessing
) -> InMemory | Stream:
    """The examples of a split, see `vit_jax.data.sources.open_split`."""
    return open_split(
        source,
        split,
        preprocessing,
        memory_gib=config.data.memory_gib,
        on_error=config.data.on_error,
        min_area=config.augment.random_resized_crop,
    )


def train_order(config: Any, num_examples: int, rows: range) -> TrainOrder:
    """The order in which a run visits its examples.

    Args:
      rows: those of each batch that this process reads.

    Raises:
      InputError: if the repeats do not divide the batch.
    """
    return TrainOrder(num_examples, config.batch_size, rows, config.seed, config.data.repeats)


def count_steps(config: Any, num_examples: int) -> int:
    """The length of a run: `num_steps`, or as many as `num_epochs` take.

    Raises:
      InputError: if that is not at least one.
    """
    if config.num_steps is not None:
        num_steps = config.num_steps
    else:
        num_steps = math.ceil(
            config.num_epochs * num_examples * config.data.repeats / config.batch_size
        )
    if num_steps < 1:
        raise InputError(f'num_steps or num_epochs: expected at least one step, got {num_steps}')
    return num_steps


def create_augment(
    config: Any, examples: InMemory | Stream, num_classes: int, axis_name: str | None
) -> Any:
    """`augment` with a config's options.

    Args:
      examples: of the training split.
      num_classes: of the data.
      axis_name: see `augment`.
    """
    options = dict(config.augment)
    if isinstance(examples, Stream):
        options['random_resized_crop'] = 0.0  # a stream crops the original pictures
    return partial(augment, num_classes=num_classes, axis_name=axis_name, **options)


def create_learner(
    config: Any,
    start: Start,
    examples: InMemory | Stream,
    num_steps: int,
    axis_name: str | None,
) -> tuple[Learner, optax.Schedule]:
    """What a config trains, and its learning rate as a function of the steps done.

    Args:
      start: from `find_start`.
      examples: of the training split.
      num_steps: length of the run.
      axis_name: of the mapped axis over devices, under pmap.

    Raises:
      InputError: if an option of the optimizer is wrong.
    """
    optim = config.optim
    schedule = learning_rate_schedule(optim.learning_rate, optim.warmup_steps, num_steps)
    params = abstract_variables(start.model)['params']
    factors = learning_rate_factors(params, optim.layer_decay, optim.freeze)
    learner = Learner(
        model=start.model,
        normalize=start.preprocessing.normalize,
        augment=create_augment(config, examples, start.model.num_classes, axis_name),
        optimizer=create_optimizer(
            optim.name,
            schedule,
            weight_decay=optim.weight_decay,
            b1=optim.b1,
            b2=optim.b2,
            clip_norm=optim.clip_norm,
            factors=factors,
        ),
        freeze=partial(stop_frozen, factors=factors),
    )
    return learner, schedule


def _from_weights(config: Any, class_names: list[str]) -> Start:
    init, data, arguments = config.init, config.data, model_arguments(config.model)
    if init.head not in ('new', 'keep'):
        raise InputError(f"init.head: expected 'new' or 'keep', got {init.head!r}")
    if data.image_size is not None:
        arguments['image_size'] = data.image_size
    if init.head == 'new':
        arguments['num_classes'] = len(class_names)
    try:
        weights = read_weights(
            init.weights,
            step=init.step,
            resize=init.resize,
            new_head=init.head == 'new',
            **arguments,
        )
        preprocessing = weights.preprocessing(data.mean, data.std, data.crop_fraction)
    except InputError as error:
        raise InputError(f'init.weights: {error}') from None
    if init.head == 'keep':
        _check_classes(weights, class_names)
    notes = [f'{init.weights}: {note}' for note in weights.notes]
    return Start(weights.model, weights.variables['params'], preprocessing, notes)


def _check_classes(weights: Weights, class_names: list[str]) -> None:
    """Validates that kept classes are those of the data.

    Raises:
      InputError: if they are not.
    """
    kept = weights.description['class_names']
    if weights.model.num_classes != len(class_names):
        got = f'{len(class_names)} classes, and the weights {weights.model.num_classes}'
    elif kept is not None and kept != class_names:
        pairs = zip(kept, class_names, strict=True)
        got = next(
            f'{ours!r} where the weights have {name!r}' for name, ours in pairs if ours != name
        )
    else:
        return
    raise InputError(
        f"init.head='keep': expected the classes of the weights, the data has {got}; "
        f"choose init.head='new'"
    )
