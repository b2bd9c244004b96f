"""What shapes tell of a ViT's arguments, and what has to be asked for."""

import math
from typing import Any

from vit_jax.errors import InputError
from vit_jax.model.shapes import pair
from vit_jax.weights.files import Tensors


def shape_of(tensors: Tensors, name: str, ndim: int) -> tuple[int, ...]:
    """The shape of an array that a format cannot be without.

    Raises:
      InputError: where it is missing, or has not so many axes.
    """
    if name not in tensors:
        raise InputError(f'expected an array {name}, but there is none')
    shape = tensors[name].shape
    if len(shape) != ndim or 0 in shape:
        raise InputError(f'{name}: expected {ndim} axes, none of them empty, got shape {shape}')
    return shape


def count_layers(tensors: Tensors, prefix: str) -> int:
    """How many different numbers follow a prefix."""
    separator = '/' if '/' in prefix else '.'
    numbers = {n[len(prefix) :].split(separator)[0] for n in tensors if n.startswith(prefix)}
    return max(1, len(numbers))


def infer_classes(tensors: Tensors, name: str, axis: int, told: dict[str, Any]) -> dict[str, int]:
    """`num_classes` of a head's array; of a new head, where the file has none.

    Raises:
      InputError: where there is neither.
    """
    if name in tensors:
        return {'num_classes': shape_of(tensors, name, 2)[axis]}
    if 'num_classes' not in told:
        raise InputError(f'there is no head in it, no {name}; give num_classes= for a new one')
    return {'num_classes': told['num_classes']}


def split_heads(inner_dim: int, heads: int | None) -> dict[str, int]:
    """`heads` and `dim_head` of attention over so many features.

    Raises:
      InputError: where nobody told the number of heads, or it does not divide them.
    """
    if not isinstance(heads, int) or heads < 1 or inner_dim % heads:
        raise InputError(
            f'the number of heads is not in the file; expected heads= dividing {inner_dim}, '
            f'got {heads or "none"}'
        )
    return {'heads': heads, 'dim_head': inner_dim // heads}


def infer_positions(
    num_positions: int, num_prefix: int, patch_size: int | tuple[int, int], told: dict[str, Any]
) -> dict[str, Any]:
    """`image_size` and `posemb` of so many learned position embeddings.

    Their grid is the one that was told, else a square, or that of the image size that somebody
    wants of the model, where not both are possible.

    Args:
      num_positions: length of the position embedding.
      num_prefix: tokens before the patches, which it may cover or not.
      patch_size: pixels.
      told: arguments of the ViT that are known, and perhaps 'grid' (of the embeddings) and
        'wanted_size' (an image size, not necessarily theirs).

    Raises:
      InputError: where that leaves none or several possibilities.
    """
    p1, p2 = pair(patch_size)
    covered = {'learned': num_prefix, 'learned_patches': 0}
    if not num_prefix:
        del covered['learned_patches']
    elif 'posemb' in told:
        covered = {told['posemb']: covered.get(told['posemb'], 0)}

    def grid_of(image_size: Any) -> tuple[int, int]:
        height, width = pair(image_size)
        return height // p1, width // p2

    if told.get('grid'):
        grids = [pair(told['grid'])]
    elif 'image_size' in told:
        grids = [grid_of(told['image_size'])]
    else:
        sides = (math.isqrt(max(num_positions - prefix, 0)) for prefix in covered.values())
        grids = [(side, side) for side in sides if side]
        if told.get('wanted_size'):
            grids.append(grid_of(told['wanted_size']))
    fitting = _fitting(grids, covered, num_positions)
    if len(fitting) != 1:
        raise InputError(
            f'{num_positions} position embeddings, with {num_prefix} tokens before the patches: '
            f'expected {" or ".join(f"{r} x {c}" for r, c in dict.fromkeys(grids))} patches, '
            f'and only one of these possible; '
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
    """Kinds of position embedding and grids that make so many of them."""
    return [
        (posemb, grid)
        for posemb, prefix in covered.items()
        for grid in dict.fromkeys(grids)
        if prefix + math.prod(grid) == num_positions
    ]
