"""Weights from and to other formats, one module per format."""

import logging
import os
from pathlib import Path
from typing import Any

from vit_jax.errors import InputError
from vit_jax.model.shapes import pair, parameter_shapes
from vit_jax.model.vit import ViT
from vit_jax.weights.accounting import PLAIN, from_flax, shorten
from vit_jax.weights.adapters import merge_adapters
from vit_jax.weights.files import TORCH, write_tensors
from vit_jax.weights.huggingface_folder import write_folder
from vit_jax.weights.positions import with_learned_positions
from vit_jax.weights.reading import FORMATS, Weights, describe, flatten, read_weights

__all__ = ['Weights', 'choose_format', 'load_weights', 'read_weights', 'save_weights']


def load_weights(
    path: str | os.PathLike[str],
    *,
    resize: str | None = None,
    grid: tuple[int, int] | None = None,
    **overrides: Any,
) -> tuple[ViT, dict[str, Any]]:
    """Reads a model and its variables from a run directory, a weight file or a folder.

    Args:
      path: a run directory; Google's `.npz`; timm's or vit-pytorch's `.safetensors`, `.pth`, `.pt`
        or `.bin` (PyTorch's are read with `weights_only=True` and need torch); or a Hugging Face
        folder, of ViT, DeiT, MAE, I-JEPA, DINOv2, DINOv3, CLIP or SigLIP. The format of a file is
        recognised by its array names, that of a folder by its `config.json`.
      resize: how to resize position embeddings: 'bilinear', like Google; 'bicubic', like timm; or
        'bicubic_no_antialias', like most of Hugging Face's; None: as the weights' own code does.
      grid: rows and columns of a file's position embeddings, if they are not a square and cannot be
        inferred; `image_size=` works too, if it gives that many patches in a non-square grid.
      **overrides: arguments of the ViT. They supply what a file lacks: `heads=` for timm and
        vit-pytorch, `pool=`, `gelu=`, `norm_eps=` and the like. They change the model: another
        `image_size=` or `patch_size=` resizes the embeddings, another `num_classes=` gives a new
        head of zeros, and 0 drops it; `representation_size=0` drops the layer before it. And they
        set how to compute: `dtype=`, `dropout=`, ….

    Returns:
      The model, and `{'params': …}`, float32, in the layout of `ViT.init`. Without a classifier in
      the file, it has `num_classes=0`. What was resized, newly initialised or ignored is logged.

    Raises:
      InputError: if the file is missing, damaged or of an unknown format, lacks arrays or has
        additional ones, or does not fit the overrides.
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
    *,
    dtype: str = 'float32',
) -> None:
    """Writes variables in a foreign format; adapters are merged.

    Args:
      path: a `.npz` for 'google'; a `.safetensors`, or `.pt`, `.pth`, `.bin` (which need torch),
        for 'timm' and 'seed'; a new folder for 'huggingface'.
      model, variables: from `load_weights`, or a ViT and the variables from its `init`.
      format: 'google', 'timm', 'huggingface' (the first of transformers' ViTs that computes the
        same) or 'seed' (vit-pytorch).
      description: see `Weights`; stored in `.safetensors` files and Hugging Face folders, together
        with the ViT's arguments.
      dtype: of the stored numbers, 'float32' or 'float16'.

    Raises:
      InputError: if the format, the dtype or the file ending is unknown, the format cannot express
        the model, or the file cannot be written.
    """
    if format not in list(FORMATS):
        raise InputError(f'format: expected one of {", ".join(FORMATS)}, got {format!r}')
    if dtype not in ('float32', 'float16'):
        raise InputError(f"dtype: expected 'float32' or 'float16', got {dtype!r}")
    path = Path(path)
    if (path.suffix == '.npz') != (format == 'google') and format != 'huggingface':
        raise InputError(
            f"{path}: expected '.npz' for format 'google' and for no other, got format {format!r}"
        )
    if path.suffix in ('.npz', '.safetensors', *TORCH) and format == 'huggingface':
        raise InputError(f"{path}: expected a new folder for format 'huggingface', got a file name")
    params = flatten(variables)
    if (shapes := {n: x.shape for n, x in params.items()}) != parameter_shapes(model):
        wrong = dict(set(shapes.items()) ^ set(parameter_shapes(model).items()))
        raise InputError(
            f'variables do not match the model; missing, extra or misshaped: {shorten(wrong)}'
        )
    model, params = merge_adapters(model, params)
    if _takes_learned_positions(model, format):
        model, params = with_learned_positions(model, params)
    FORMATS[format].check(model)
    described = describe(path, description or {}, model.num_classes)
    arrays = from_flax(params, FORMATS[format].entries(model))
    arrays = {name: array.astype(dtype, copy=False) for name, array in arrays.items()}
    write = write_folder if format == 'huggingface' else write_tensors
    write(path, arrays, model, described)
    lost = [name for name, value in described.items() if value]
    if lost and path.suffix in ('.npz', *TORCH) and format != 'huggingface':
        what = ' and '.join(name.replace('_', ' ') for name in lost)
        logging.getLogger('vit_jax').warning('%s: this format has no room for %s', path, what)
    height, width = pair(model.image_size)
    fraction = (described['preprocessing'] or {}).get('crop_fraction')
    if format == 'huggingface' and fraction and height != width:
        message = '%s: ViTImageProcessor resizes the whole picture, not its centre crop (%s)'
        logging.getLogger('vit_jax').warning(message, path, f'crop_fraction {fraction}')


def choose_format(path: str | os.PathLike[str], model: ViT) -> str:
    """The first format that can express a model in a file, or a folder, of this name.

    Raises:
      InputError: if none can; it says what else can, if anything.
    """
    suffix = Path(path).suffix
    kinds = {'google': '.npz', 'timm': '.safetensors', 'seed': '.safetensors', 'huggingface': ''}
    reasons, others = [], []
    for format, kind in kinds.items():
        learned = _takes_learned_positions(model, format)
        is_kind = kind == suffix or (kind == '.safetensors' and suffix in TORCH)
        try:
            FORMATS[format].check(model.clone(posemb='learned') if learned else model)
        except InputError as error:
            reasons += [str(error).partition('; ')[0]] * is_kind
        else:
            if is_kind:
                return format
            others.append(f'a {kind} file ({format})' if kind else f'a folder ({format})')
    raise InputError(
        f'{path}: no such file can express the model'
        + ''.join(f'; {reason}' for reason in reasons)
        + (f'; expected {" or ".join(others)}' if others else '; nor can any other format')
    )


def _takes_learned_positions(model: ViT, format: str) -> bool:
    """Whether the position embeddings must be written as learned ones, and can be."""
    posembs = FORMATS[format].EXPRESSIBLE.get('posemb', PLAIN['posemb'])
    return model.posemb not in posembs and model.posemb in PLAIN['posemb']
