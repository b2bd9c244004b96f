"""The model that a run starts from: a new one, one with weights, or that of an earlier start."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from vit_jax.data.preprocess import Preprocessing
from vit_jax.errors import InputError
from vit_jax.model.arguments import stored_arguments
from vit_jax.model.shapes import parameter_shapes
from vit_jax.model.vit import ViT
from vit_jax.run.description import read_description
from vit_jax.run.storage import AnyPath
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


def start_from_run(
    run_directory: AnyPath, arguments: dict[str, Any], preprocessing: dict[str, Any]
) -> Start:
    """The model of a run to resume, whose initial weights may be gone.

    Args:
      arguments: of the ViT; they win over the run's.
      preprocessing: arguments of `Preprocessing`; likewise.
    """
    description = read_description(run_directory)
    model = ViT(**description['model'] | arguments)
    own = Preprocessing(**description['preprocessing'] | preprocessing)
    return Start(model, None, own, [])


def start_from_weights(
    path: str,
    class_names: list[str],
    *,
    step: str | int,
    head: str,
    resize: str | None,
    arguments: dict[str, Any],
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    crop_fraction: float | None,
) -> Start:
    """The model of weights, for the classes of the data.

    Args:
      path, step, resize: see `vit_jax.weights.reading.read_weights`.
      class_names: of the data.
      head: 'new' for a classifier of zeros, 'keep' for the weights' own.
      arguments: of the ViT; they win over the weights'.
      mean, std, crop_fraction: see `Preprocessing`; None for those of the weights.

    Raises:
      InputError: if the weights cannot be read or do not fit, or `head` is unknown.
    """
    if head not in ('new', 'keep'):
        raise InputError(f"init.head: expected 'new' or 'keep', got {head!r}")
    if head == 'new':
        arguments = arguments | {'num_classes': len(class_names)}
    try:
        weights = read_weights(path, step=step, resize=resize, new_head=head == 'new', **arguments)
        preprocessing = weights.preprocessing(mean, std, crop_fraction)
    except InputError as error:
        raise InputError(f'init.weights: {error}') from None
    if head == 'keep' and (differing := differing_classes(weights, class_names)):
        raise InputError(
            f"init.head='keep': expected the classes of the weights, but {differing}; "
            f"choose init.head='new'"
        )
    notes = [f'{path}: {note}' for note in weights.notes]
    return Start(weights.model, weights.variables['params'], preprocessing, notes)


def with_adapters(start: Start, rank: int, kernels: str, seed: int) -> Start:
    """The same function, with adapters to train: A is drawn, B is zero.

    Args:
      start: from weights.
      rank, kernels: see `vit_jax.model.extras.Extras`.
      seed: of the draw.
    """
    model = start.model.clone(lora_rank=rank, lora_kernels=kernels)
    params, rng = dict(flatten_dict(start.params, sep='/')), np.random.default_rng(seed)
    for name, shape in sorted(parameter_shapes(model).items()):
        if name.endswith('/lora_a'):
            bound = shape[-2] ** -0.5
            params[name] = rng.uniform(-bound, bound, shape).astype(np.float32)
        elif name.endswith('/lora_b'):
            params[name] = np.zeros(shape, np.float32)
    return start._replace(model=model, params=unflatten_dict(params, sep='/'))


def describe(start: Start, class_names: list[str], multi_label: bool = False) -> dict[str, Any]:
    """What using the result takes, for `description.json`."""
    return {
        'model': stored_arguments(start.model),
        'preprocessing': dataclasses.asdict(start.preprocessing),
        'class_names': class_names,
        'multi_label': multi_label,
    }


def differing_classes(weights: Weights, class_names: list[str]) -> str | None:
    """What differs between the classes of the data and those of weights; None if nothing does.

    Args:
      weights: whose classes may have no names.
      class_names: of the data.
    """
    kept = weights.description['class_names']
    if weights.model.num_classes != len(class_names):
        return f'the data has {len(class_names)} classes, the weights {weights.model.num_classes}'
    if kept is None or kept == class_names:
        return None
    pairs = zip(class_names, kept, strict=True)
    return next(f'the data has {a!r} where the weights have {b!r}' for a, b in pairs if a != b)
