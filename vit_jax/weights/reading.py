"""Reads a run directory, a weight file or a folder, with all that is known of it."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from vit_jax.data.preprocess import Preprocessing
from vit_jax.errors import InputError
from vit_jax.model.arguments import argument_names
from vit_jax.model.shapes import pair, parameter_shapes
from vit_jax.model.vit import ViT
from vit_jax.run.storage import is_remote, open_path
from vit_jax.weights import google, huggingface, timm, vit_pytorch
from vit_jax.weights.accounting import HEAD, shorten, to_flax
from vit_jax.weights.files import Arrays, Tensors, as_input_error, read_tensors
from vit_jax.weights.huggingface_folder import read_folder
from vit_jax.weights.resize import ADAPTED, METHODS, adapt
from vit_jax.weights.run_directory import load_run

FORMATS = {'google': google, 'timm': timm, 'huggingface': huggingface, 'seed': vit_pytorch}
# Arguments that the arrays determine or imply; metadata must agree.
SIZES = {
    'image_size',
    'patch_size',
    'channels',
    'num_classes',
    'dim',
    'depth',
    'heads',
    'dim_head',
    'mlp_dim',
}


class Weights(NamedTuple):
    """What a run directory or a weight file holds.

    Args:
      model: with the arguments that its parameters need.
      variables: {'params': …}, in the layout of `ViT.init`.
      description: 'class_names' (a list) and 'preprocessing' (arguments of
        `vit_jax.data.preprocess.Preprocessing`); None if unknown. 'multi_label', True, only if so.
      notes: messages on what was resized, dropped, ignored or newly initialised.
      name: the path; of a run, with the step.
    """

    model: ViT
    variables: dict[str, Any]
    description: dict[str, Any]
    notes: list[str]
    name: str

    @property
    def class_names(self) -> list[str]:
        """In the order of the probabilities; numbers if the weights have none."""
        numbers = [str(label) for label in range(self.model.num_classes)]
        return self.description['class_names'] or numbers

    @property
    def multi_label(self) -> bool:
        """Whether a picture may have any number of the classes, as opposed to exactly one."""
        return bool(self.description.get('multi_label'))

    def preprocessing(
        self,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        crop_fraction: float | None = None,
    ) -> Preprocessing:
        """The preprocessing of pictures for this model.

        Args:
          mean, std, crop_fraction: override the described ones.

        Raises:
          InputError: if mean or std is neither given nor described, or a picture cannot have the
            model's number of channels.
        """
        model, described = self.model, dict(self.description['preprocessing'] or {})
        given = {'mean': mean, 'std': std, 'crop_fraction': crop_fraction}
        known = described | {name: value for name, value in given.items() if value is not None}
        if not {'mean', 'std'} <= known.keys():
            raise InputError(
                'expected mean and std of the pixels that the weights were trained with; '
                'the file lacks them'
            )
        size = pair(model.image_size)
        return Preprocessing(**{**known, 'image_size': size, 'channels': model.channels})


def read_weights(
    path: str | os.PathLike[str],
    *,
    step: str | int = 'newest',
    ema: bool = True,
    resize: str | None = None,
    grid: tuple[int, int] | None = None,
    new_head: bool = False,
    **overrides: Any,
) -> Weights:
    """`load_weights`, with all else that is known of the weights.

    Args:
      step: of a run's checkpoint: 'newest', 'best' (on the test split) or a number.
      ema: whether to take the moving average of a run's parameters, if it has one.
      new_head: whether to start from a head of zeros even if the number of classes stays.
    """
    run_directory, path = open_path(path), Path(path)
    if unknown := overrides.keys() - set(argument_names(ViT)):
        raise InputError(f'expected arguments of ViT, got {", ".join(sorted(unknown))}')
    if resize not in (None, *METHODS):
        raise InputError(f'resize: expected one of {", ".join(METHODS)}, got {resize!r}')
    changes = {name: overrides[name] for name in ADAPTED if name in overrides}
    given = {name: value for name, value in overrides.items() if name not in ADAPTED}
    name = str(path)
    is_run = (run_directory / 'description.json').is_file()
    if is_run and grid:
        raise InputError(f'{path}: grid= is for weight files; a run directory records its own')
    if not is_run and step != 'newest':
        raise InputError(f'{path}: not a run directory, so expected no step, got {step!r}')
    if is_run:
        model, variables, description, name = load_run(run_directory, step, ema)
        notes: list[str] = []
        trained = model
        model = model.clone(**given)
        if parameter_shapes(model) != parameter_shapes(trained):
            changed = ', '.join(f'{name}={value!r}' for name, value in given.items())
            raise InputError(f'{path}: {changed} would change the shapes of its parameters')
        params, method = flatten(variables), 'bilinear'
    elif is_remote(run_directory) or (path.is_dir() and not (path / 'config.json').is_file()):
        raise InputError(
            f'{run_directory}: expected a run directory with description.json, or a Hugging Face '
            f'folder with config.json, but it has neither'
        )
    else:
        with as_input_error(path):
            source = read_folder(path) if path.is_dir() else read_tensors(path)
        model, params, description, notes, method = _from_tensors(
            *source, given, changes, grid, str(path)
        )
    for argument in ('num_classes', 'representation_size'):
        current = getattr(model, argument)
        new_head |= overrides.get(argument, current) != current
    model, params, new_notes = adapt(model, params, changes, resize or method, new_head)
    weights = Weights(
        model,
        {'params': unflatten_dict(params, sep='/')},
        describe(path, description, None if new_head else model.num_classes),
        notes + new_notes,
        name,
    )
    if weights.description['preprocessing'] and model.channels in (1, 3):
        try:
            with as_input_error(path):
                weights.preprocessing()
        except InputError as error:
            raise InputError(f'{path}: preprocessing: {error}') from None
    return weights


def check_classifies(model: ViT, name: str) -> None:
    """Raises InputError if weights of that name have no classifier."""
    if not model.num_classes:
        raise InputError(
            f'{name}: expected a classifier, but the weights are a backbone without one; '
            f'vit_jax probe and configs/finetune.py train one'
        )


def flatten(variables: dict[str, Any]) -> Arrays:
    """Parameters by name, float32."""
    params = flatten_dict(variables.get('params', {}), sep='/')
    return {name: np.asarray(x, np.float32) for name, x in params.items()}


def describe(path: Path, description: Any, num_classes: int | None) -> dict[str, Any]:
    """Validates a description and completes its keys.

    Args:
      num_classes: number of class names to expect; None for a new head, whose classes have none.

    Raises:
      InputError: if it is not a description.
    """
    known = {'preprocessing', 'class_names', 'multi_label'}
    if not isinstance(description, dict) or description.keys() - known:
        raise InputError(
            f"{path}: expected a description ('preprocessing', 'class_names'), got {description!r}"
        )
    class_names = description.get('class_names') if num_classes else None
    if class_names is not None:
        is_names = isinstance(class_names, list | tuple) and all(
            isinstance(name, str) and name.isprintable() for name in class_names
        )
        if not is_names or len(class_names) != num_classes:
            raise InputError(f'{path}: expected names of {num_classes} classes, got {class_names}')
    preprocessing = description.get('preprocessing')
    is_multi_label = num_classes and description.get('multi_label') is True
    return {
        'preprocessing': preprocessing,
        'class_names': None if class_names is None else list(class_names),
        **({'multi_label': True} if is_multi_label else {}),
    }


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal, or the same size in pixels."""
    sizes = isinstance(one, tuple) != isinstance(other, tuple)
    return pair(one) == pair(other) if sizes else one == other


def _from_tensors(
    tensors: Tensors,
    metadata: dict[str, Any],
    given: dict[str, Any],
    changes: dict[str, Any],
    grid: tuple[int, int] | None,
    name: str,
) -> tuple[ViT, Arrays, dict[str, Any], list[str], str]:
    """Model, parameters, description and notes, as a file has them, and how it would be resized.

    Args:
      tensors: its arrays.
      metadata: what it says besides: 'arguments', 'description', 'notes' and 'layout', its format,
        all optional.
      given: arguments of the ViT that override the file's.
      changes: arguments wanted of the model in the end; they may also supply what the file lacks.
      grid: rows and columns of its position embeddings.
      name: of the file, for errors.
    """
    notes = []
    if prefix := google.find_prefix(tensors):
        aside = [n for n in tensors if not n.startswith(prefix)]
        tensors = {n.removeprefix(prefix): x for n, x in tensors.items() if n.startswith(prefix)}
        if aside:
            notes.append(f'{len(aside)} arrays outside {prefix} ignored: {shorten(aside)}')
    recognised = (f for f in FORMATS.values() if f.recognises(tensors))
    layout: Any = metadata.get('layout') or next(recognised, None)
    if layout is None:
        raise InputError(
            f'{name}: expected the arrays of a ViT in one of the formats {", ".join(FORMATS)}, '
            f'got {shorten(tensors)}'
            if tensors
            else f'{name}: contains no arrays'
        )
    declared = metadata.get('arguments', {})
    try:
        wanted = dict(changes)
        wanted['wanted_size'] = wanted.pop('image_size', None)
        inferred = layout.infer(tensors, {**wanted, **declared, **given, 'grid': grid})
        for size in SIZES & declared.keys() - given.keys():
            if not _same(inferred[size], declared[size]):
                raise InputError(
                    f'metadata says {size}={declared[size]!r}, but arrays say {inferred[size]!r}'
                )
        model = ViT(**{**inferred, **declared, **given})
    except (InputError, TypeError) as error:  # metadata may hold values of any type
        raise InputError(f'{name}: {str(error).splitlines()[0]}') from None
    new = [ours for ours in parameter_shapes(model) if ours.startswith(HEAD)]
    if layout.HEAD_ARRAY in tensors:
        new = []
    elif new:
        notes.append(f'new head of zeros for {model.num_classes} classes: the file has none')
    params = to_flax(tensors, layout.entries(model, tensors), model, name, new)
    description = metadata.get('description', getattr(layout, 'DESCRIPTION', {}))
    return model, params, description, notes + metadata.get('notes', []), layout.RESIZE
