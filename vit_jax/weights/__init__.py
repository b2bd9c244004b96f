"""Weights from and to other formats, one file a format."""

import logging
import os
from pathlib import Path
from typing import Any

from vit_jax.errors import InputError
from vit_jax.model.shapes import parameter_shapes
from vit_jax.model.vit import ViT
from vit_jax.weights.accounting import from_flax, shorten
from vit_jax.weights.files import TORCH, write_tensors
from vit_jax.weights.huggingface_folder import write_folder
from vit_jax.weights.reading import FORMATS, Weights, describe, flatten, read_weights

__all__ = ['Weights', 'load_weights', 'read_weights', 'save_weights']


def load_weights(
    path: str | os.PathLike[str],
    *,
    resize: str = 'bilinear',
    grid: tuple[int, int] | None = None,
    **overrides: Any,
) -> tuple[ViT, dict[str, Any]]:
    """Reads a model and its variables, wherever they come from.

    Args:
      path: a run directory; Google's `.npz`; timm's or vit-pytorch's `.safetensors`, `.pth`, `.pt`
        or `.bin` (those of PyTorch are read with `weights_only=True` and need torch); or a Hugging
        Face folder. A file's format is told by the names in it.
      resize: how position embeddings are resized: 'bilinear', as Google's, or 'bicubic', as timm's.
      grid: rows and columns of a file's position embeddings, where they are not of a square and
        nothing tells; `image_size=` tells it too, if its patches are as many and no square's.
      **overrides: the ViT's own arguments. What a file cannot tell: `heads=` for timm and
        vit-pytorch, `pool=`, `gelu=`, `norm_eps=` and the like. What is to be different: with
        another `image_size=` or `patch_size=` the embeddings are resized, with another
        `num_classes=` the head is new and zero, `representation_size=0` leaves out the layer before
        it. And how to compute: `dtype=`, `dropout=`, ….

    Returns:
      The model, and `{'params': …}`, float32, as `ViT.init` lays them out. What was resized, is new
      or was left aside is logged.

    Raises:
      InputError: where the file is missing, damaged, of an unknown format, lacks or has additional
        arrays, or does not fit the overrides.
    """
    weights = read_weights(path, resize=resize, grid=grid, **overrides)
    for note in weights.notes:
        logging.getLogger('vit_jax').warning('%s: %s', path, note)
    return weights.model, weights.variables


def save_weights(
    path: str | os.PathLike[str],
    model: ViT,
    variables: dict[str, Any],
    format: str,
    description: dict[str, Any] | None = None,
) -> None:
    """Writes variables in a foreign format.

    Args:
      path: for 'google' a `.npz`; for 'timm' and 'seed' a `.safetensors`, or `.pt`, `.pth`, `.bin`
        (those need torch); for 'huggingface' a new folder.
      model, variables: as `load_weights` or `ViT.init` gives them.
      format: 'google', 'timm', 'huggingface', or 'seed', vit-pytorch's.
      description: see `Weights`; `.safetensors` and Hugging Face's folders take it down, together
        with the ViT's arguments.

    Raises:
      InputError: where the format or the ending is unknown, the format cannot express the model, or
        the file cannot be written.
    """
    if format not in list(FORMATS):
        raise InputError(f'format: expected one of {", ".join(FORMATS)}, got {format!r}')
    path = Path(path)
    if (path.suffix == '.npz') != (format == 'google') and format != 'huggingface':
        raise InputError(f"{path}: '.npz' belongs to format 'google' and no other, got {format!r}")
    FORMATS[format].check(model)
    params = flatten(variables)
    if (shapes := {n: x.shape for n, x in params.items()}) != parameter_shapes(model):
        wrong = dict(set(shapes.items()) ^ set(parameter_shapes(model).items()))
        raise InputError(f'expected the variables of the model, but not so: {shorten(wrong)}')
    described = describe(path, description or {}, model.num_classes)
    arrays = from_flax(params, FORMATS[format].entries(model))
    write = write_folder if format == 'huggingface' else write_tensors
    write(path, arrays, model, described)
    lost = [name for name, value in described.items() if value]
    if lost and path.suffix in ('.npz', *TORCH) and format != 'huggingface':
        what = ', '.join(f'{name} {described[name]}' for name in lost)
        logging.getLogger('vit_jax').warning('%s: has no room for %s', path, what)
    if format == 'huggingface' and (described['preprocessing'] or {}).get('crop_fraction'):
        message = '%s: ViTImageProcessor resizes pictures whole, and not the middle of them (%s)'
        fraction = described['preprocessing']['crop_fraction']
        logging.getLogger('vit_jax').warning(message, path, f'crop_fraction {fraction}')
