"""Adapts weights to other image sizes, patch sizes and classes than they were trained for."""

import math
from typing import Any

import jax
import numpy as np
import scipy.ndimage
from jaxtyping import Float

from vit_jax.errors import InputError
from vit_jax.model.shapes import pair, parameter_shapes
from vit_jax.model.vit import ViT
from vit_jax.weights.accounting import HEAD
from vit_jax.weights.files import Arrays

METHODS = ('bilinear', 'bicubic', 'bicubic_no_antialias')
ADAPTED = ('image_size', 'patch_size', 'num_classes', 'representation_size')


def resize_pos_embedding(
    embedding: Float[np.ndarray, '1 n d'],
    old_grid: tuple[int, int],
    new_grid: tuple[int, int],
    *,
    num_prefix: int,
    method: str,
) -> Float[np.ndarray, '1 m d']:
    """Resizes position embeddings to another grid of patches.

    Args:
      embedding: of `num_prefix` tokens, which are kept, then of the patches, row by row.
      old_grid, new_grid: rows and columns of patches.
      num_prefix: number of embeddings before those of the patches.
      method: 'bilinear' with aligned corners, as in Google's code; 'bicubic', antialiased, with
        aligned outer edges, as in timm's; 'bicubic_no_antialias', as in most of Hugging Face's.

    Returns:
      num_prefix + rows * columns embeddings.

    Raises:
      InputError: if `embedding` does not fit `old_grid`, or the method is unknown.
    """
    (rows, columns), (new_rows, new_columns) = old_grid, new_grid
    if embedding.shape[1] != num_prefix + rows * columns:
        raise InputError(
            f'expected {num_prefix} + {rows} * {columns} position embeddings, '
            f'got {embedding.shape[1]}'
        )
    if method not in METHODS:
        raise InputError(f'resize: expected one of {", ".join(METHODS)}, got {method!r}')
    prefix, patches = np.split(np.asarray(embedding), [num_prefix], axis=1)
    grid = patches.reshape(rows, columns, -1)
    if method == 'bilinear':
        zoom = (new_rows / rows, new_columns / columns, 1)
        grid = scipy.ndimage.zoom(grid, zoom, order=1)
    elif method == 'bicubic_no_antialias':
        rows_of, columns_of = (_cubic(n, m) for n, m in zip(old_grid, new_grid, strict=True))
        grid = np.einsum('ik,jl,kld->ijd', rows_of, columns_of, grid).astype(np.float32)
    else:
        grid = np.asarray(jax.image.resize(grid, (*new_grid, grid.shape[-1]), 'cubic'))
    return np.concatenate([prefix, grid.reshape(1, new_rows * new_columns, -1)], axis=1)


def _cubic(old: int, new: int) -> Float[np.ndarray, 'new old']:
    """Weights of cubic interpolation without antialiasing, a = -0.75, outer edges aligned.

    Those of torch's `interpolate(mode='bicubic', align_corners=False)`: four neighbours, the outer
    ones repeated.

    Reference: R. Keys, Cubic convolution interpolation for digital image processing, 1981.
    """
    a = -0.75
    places = (np.arange(new) + 0.5) * old / new - 0.5
    weights = np.zeros((new, old))
    for offset in (-1, 0, 1, 2):
        neighbours = np.floor(places) + offset
        x = np.abs(places - neighbours)
        near, far = (a + 2) * x**3 - (a + 3) * x**2 + 1, a * (x**3 - 5 * x**2 + 8 * x - 4)
        columns = np.clip(neighbours, 0, old - 1).astype(int)
        weights[np.arange(new), columns] += np.where(x <= 1, near, far)
    return weights


def resize_patch_kernel(
    kernel: Float[np.ndarray, 'pixels d'],
    old_patch: tuple[int, int],
    new_patch: tuple[int, int],
) -> Float[np.ndarray, 'new_pixels d']:
    """Resizes a patch embedding to another patch size, by FlexiViT's pseudo-inverse.

    The new kernel gives resized patches the embeddings of the old ones: exactly for larger patches,
    in the least-squares sense for smaller ones. Resizing is bilinear without antialiasing.

    Args:
      kernel: [height * width * channels, d], row by row.
      old_patch, new_patch: (height, width) in pixels.

    Reference: https://arxiv.org/abs/2212.08013, section 3.4.
    """
    pixels = math.prod(old_patch)
    basis = np.eye(pixels, dtype=np.float32).reshape(pixels, *old_patch)
    resized = jax.image.resize(basis, (pixels, *new_patch), 'linear', antialias=False)
    resize = np.asarray(resized, np.float64).reshape(pixels, -1).T  # [new pixels, old pixels]
    old = np.asarray(kernel, np.float64).reshape(pixels, -1)  # [old pixels, (c d)]
    new = np.linalg.pinv(resize.T) @ old
    return new.reshape(-1, kernel.shape[-1]).astype(np.float32)


def adapt(
    model: ViT, params: Arrays, changes: dict[str, Any], method: str, new_head: bool
) -> tuple[ViT, Arrays, list[str]]:
    """Adapts a model and its parameters to other arguments out of `ADAPTED`.

    Args:
      model, params: before the changes; parameters flat, by name.
      changes: new arguments.
      method: of `resize_pos_embedding`.
      new_head: whether to give it a new head of zeros.

    Returns:
      The new model, its parameters, and messages on what was changed.

    Raises:
      InputError: if the changes cannot be made.
    """
    new = model.clone(**changes)
    params, notes = dict(params), []
    old_patch, patch = pair(model.patch_size), pair(new.patch_size)
    if patch != old_patch:
        kernel = np.asarray(params['to_patch_embedding/kernel'])
        params['to_patch_embedding/kernel'] = resize_patch_kernel(kernel, old_patch, patch)
        notes.append(f'patch embedding resized: {_by(old_patch)} → {_by(patch)} pixels')
    if new.grid != model.grid and 'pos_embedding' in params:
        params['pos_embedding'] = resize_pos_embedding(
            params['pos_embedding'],
            model.grid,
            new.grid,
            num_prefix=model.num_prefix if model.posemb == 'learned' else 0,
            method=method,
        )
        notes.append(
            f'position embedding resized, {method}: {_by(model.grid)} → {_by(new.grid)} patches'
        )
    if new.representation_size != model.representation_size:
        if new.representation_size:
            raise InputError(
                f'representation_size: expected {model.representation_size}, as in the weights, '
                f'or 0 to drop that layer, got {new.representation_size}'
            )
        notes.append('layer before the logits dropped: mlp_head/pre_logits')
        params = {name: x for name, x in params.items() if '/pre_logits/' not in name}
    if new_head:
        shapes = parameter_shapes(new)
        head = {name: shape for name, shape in shapes.items() if name.startswith(HEAD)}
        params = {name: x for name, x in params.items() if not name.startswith(HEAD)}
        params |= {name: np.zeros(shape, np.float32) for name, shape in head.items()}
        before = f' in place of one for {model.num_classes}' if model.num_classes else ''
        notes.append(
            f'new head of zeros for {new.num_classes} classes{before}'
            if head
            else f'head for {model.num_classes} classes dropped'
        )
    return new, params, notes


def _by(pair: tuple[int, int]) -> str:
    return f'{pair[0]} x {pair[1]}'
