"""Infers a ViT's arguments from array shapes; names those that must be given."""

import math
from typing import Any

from vit_jax.errors import InputError
from vit_jax.model.shapes import pair
from vit_jax.weights.files import Tensors


def shape_of(tensors: Tensors, name: str, ndim: int) -> tuple[int, ...]:
    """The shape of an array that the format requires.

    Raises:
      InputError: if the array is missing or empty, or does not have `ndim` axes.
    """
    if name not in tensors:
        raise InputError(f'expected an array {name}, got none')
    shape = tensors[name].shape
    if len(shape) != ndim or 0 in shape:
        raise InputError(f'{name}: expected {ndim} axes, none of them empty, got shape {shape}')
    return shape


def count_layers(tensors: Tensors, prefix: str) -> int:
    """The number of distinct layer numbers after a prefix, at least 1."""
    separator = '/' if '/' in prefix else '.'
    numbers = {n[len(prefix) :].split(separator)[0] for n in tensors if n.startswith(prefix)}
    return max(1, len(numbers))


def infer_classes(tensors: Tensors, name: str, axis: int, known: dict[str, Any]) -> dict[str, int]:
    """`num_classes` of the head's array; without one, of the new head that is wanted, or 0."""
    if name in tensors:
        return {'num_classes': shape_of(tensors, name, 2)[axis]}
    return {'num_classes': known.get('num_classes', 0)}


def split_heads(inner_dim: int, heads: Any) -> dict[str, int]:
    """`heads` and `dim_head` of attention with `inner_dim` features over all heads.

    Raises:
      InputError: if the number of heads is unknown or does not divide `inner_dim`.
    """
    if not isinstance(heads, int) or heads < 1 or inner_dim % heads:
        raise InputError(
            f'the number of heads is not in the file; expected heads= dividing {inner_dim}, '
            f'got {heads or "none"}'
        )
    return {'heads': heads, 'dim_head': inner_dim // heads}


def infer_positions(
    num_positions: int, num_prefix: int, patch_size: int | tuple[int, int], known: dict[str, Any]
) -> dict[str, Any]:
    """Infers `image_size` and `posemb` from the number of learned position embeddings.

    Their grid is the known one; otherwise a square, or the grid of the image size wanted of the
    model, if only one of these fits.

    Args:
      num_positions: number of position embeddings.
      num_prefix: tokens before the patches, with or without position embeddings.
      patch_size: in pixels.
      known: known arguments of the ViT, and optionally 'grid' (of the embeddings) and 'wanted_size'
        (an image size, not necessarily theirs).

    Raises:
      InputError: if nothing fits, or the fit is ambiguous.
    """
    p1, p2 = pair(patch_size)
    covered = {'learned': num_prefix, 'learned_patches': 0}
    if not num_prefix:
        del covered['learned_patches']
    elif 'posemb' in known:
        covered = {known['posemb']: covered.get(known['posemb'], 0)}

    def grid_of(image_size: Any) -> tuple[int, int]:
        height, width = pair(image_size)
        return height // p1, width // p2

    if known.get('grid'):
        grids = [pair(known['grid'])]
    elif 'image_size' in known:
        grids = [grid_of(known['image_size'])]
    else:
        sides = (math.isqrt(max(num_positions - prefix, 0)) for prefix in covered.values())
        grids = [(side, side) for side in sides if side]
        if known.get('wanted_size'):
            grids.append(grid_of(known['wanted_size']))
    fitting = _fitting(grids, covered, num_positions)
    if len(fitting) != 1:
        raise InputError(
            f'{num_positions} position embeddings with {num_prefix} tokens before the patches: '
            f'expected {" or ".join(f"{r} x {c}" for r, c in dict.fromkeys(grids))} patches '
            f'to fit in exactly one way; '
            f"give grid=(rows, columns) of the weights, and posemb='learned' or 'learned_patches'"
        )
    (posemb, (rows, columns)), *_ = fitting
    image_size = (rows * p1, columns * p2)
    return {
        'image_size': image_size[0] if image_size[0] == image_size[1] else image_size,
        'posemb': posemb,
    }


def _fitting(
    grids: list[tuple[int, int]], covered: dict[str, int], num_positions: int
) -> list[tuple[str, tuple[int, int]]]:
    """Kinds of position embedding, and grids, that give `num_positions` embeddings."""
    return [
        (posemb, grid)
        for posemb, prefix in covered.items()
        for grid in dict.fromkeys(grids)
        if prefix + math.prod(grid) == num_positions
    ]
