"""What shapes tell of a ViT's arguments, and what has to be asked for."""

import math
from typing import Any

from vit_jax.arguments import pair
from vit_jax.errors import InputError
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
    if heads is None or heads < 1 or inner_dim % heads:
        raise InputError(
            f'the number of heads is not in the file; expected heads= dividing {inner_dim}, '
            f'got {heads or "none"}'
        )
    return {'heads': heads, 'dim_head': inner_dim // heads}


def infer_positions(
    num_positions: int, num_prefix: int, patch_size: int | tuple[int, int], told: dict[str, Any]
) -> dict[str, Any]:
    """`image_size` and `posemb` of so many learned position embeddings.

    An image size that was told is the file's where its patches are as many; else it is what
    somebody wants of the model, and the file's images are square.

    Args:
      num_positions: length of the position embedding.
      num_prefix: tokens before the patches, which it may cover or not.
      patch_size: pixels.
      told: arguments of the ViT that are known.

    Raises:
      InputError: where that leaves none or several possibilities.
    """
    covered = {'learned': num_prefix, 'learned_patches': 0}
    if not num_prefix:
        del covered['learned_patches']
    elif 'posemb' in told:
        covered = {told['posemb']: covered.get(told['posemb'], 0)}
    p1, p2 = pair(patch_size)
    if 'image_size' in told:
        height, width = pair(told['image_size'])
        for posemb, prefix in covered.items():
            if (height // p1) * (width // p2) == num_positions - prefix:
                return {'image_size': told['image_size'], 'posemb': posemb}
    squares = {
        posemb: side
        for posemb, prefix in covered.items()
        if (side := math.isqrt(max(num_positions - prefix, 0))) ** 2 == num_positions - prefix
        and side
    }
    if len(squares) != 1:
        raise InputError(
            f'{num_positions} position embeddings, with {num_prefix} tokens before the patches, '
            f'are no square of patches; give image_size=(height, width) of the weights, and '
            f"posemb='learned' or 'learned_patches'"
        )
    (posemb, side), *_ = squares.items()
    size = side * p1 if p1 == p2 else (side * p1, side * p2)
    return {'image_size': size, 'posemb': posemb}
