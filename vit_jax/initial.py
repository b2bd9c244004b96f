"""What a run starts from: a new model, or one with somebody's weights."""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from vit_jax.arguments import EXECUTION, argument_names
from vit_jax.errors import InputError
from vit_jax.model import ViT
from vit_jax.preprocess import Preprocessing
from vit_jax.run_directory import read_json
from vit_jax.variants import variant_arguments
from vit_jax.weights import Weights, read_weights


class Start(NamedTuple):
    """A model and what it sees.

    Args:
      model: for the classes of the data.
      params: to start from; None where they are to be drawn, or restored from a checkpoint.
      preprocessing: of every picture.
      notes: what became of the weights, in words.
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
      resumed: run directory that has a checkpoint of it.

    Raises:
      InputError: where the config cannot work, or the weights do not fit it.
    """
    arguments = model_arguments(config.model)
    if config.init.weights and resumed:  # the weights may be gone, and are not needed any more
        description = read_json(resumed / 'description.json')
        preprocessing = Preprocessing(**description['preprocessing'])
        return Start(ViT(**description['model'] | arguments), None, preprocessing, [])
    if config.init.weights:
        return _from_weights(config, arguments, class_names)
    needed = ('patch_size', 'dim', 'depth', 'heads', 'mlp_dim')
    if None in (config.data.image_size, config.data.mean) or not arguments.keys() >= set(needed):
        raise InputError(
            'init.weights: expected a run directory or a weight file to start from, got none'
        )
    preprocessing = Preprocessing.from_config(config.data, channels)
    model = ViT(
        **arguments,
        image_size=preprocessing.image_size,
        num_classes=len(class_names),
        channels=channels,
    )
    return Start(model, None, preprocessing, [])


def model_arguments(model: Any) -> dict[str, Any]:
    """ViT's arguments as a config's `model` gives them, those of its variant included."""
    arguments = {name: value for name, value in model.items() if value is not None}
    variant = arguments.pop('variant', None)
    return arguments | (variant_arguments(variant) if variant else {})


def describe(start: Start, class_names: list[str]) -> dict[str, Any]:
    """What it takes to use the result, for `description.json`."""
    kept = [name for name in argument_names(ViT) if name not in EXECUTION]
    return {
        'model': {name: getattr(start.model, name) for name in kept},
        'preprocessing': dataclasses.asdict(start.preprocessing),
        'class_names': class_names,
    }


def _from_weights(config: Any, arguments: dict[str, Any], class_names: list[str]) -> Start:
    init, data = config.init, config.data
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
    return Start(weights.model, weights.variables['params'], preprocessing, weights.notes)


def _check_classes(weights: Weights, class_names: list[str]) -> None:
    theirs = weights.description['class_names']
    if weights.model.num_classes != len(class_names):
        got = f'{len(class_names)} classes, and the weights {weights.model.num_classes}'
    elif theirs is not None and theirs != class_names:
        pairs = zip(theirs, class_names, strict=True)
        got = next(
            f'{ours!r} where the weights have {name!r}' for name, ours in pairs if ours != name
        )
    else:
        return
    raise InputError(
        f"init.head='keep': expected the classes of the weights, the data has {got}; "
        f"choose init.head='new'"
    )
