"""Shapes: of images that fit a ViT, and of its parameters, without computing anything."""

import functools
import math
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from vit_jax.errors import InputError


def pair(t: Any) -> tuple[int, int]:
    """A size in pixels as (height, width); an int means a square.

    Raises:
      InputError: if it is neither.
    """
    height_width = t if isinstance(t, tuple) else (t, t)
    in_range = all(isinstance(x, int) and 0 < x < 2**16 for x in height_width)
    if len(height_width) != 2 or not in_range:
        raise InputError(
            f'expected a size in pixels below 65,536, an int or (height, width), got {t!r}'
        )
    return height_width


def grid(image_size: Any, patch_size: Any) -> tuple[int, int]:
    """Rows and columns of patches."""
    (height, width), (p1, p2) = pair(image_size), pair(patch_size)
    return height // p1, width // p2


def image_grid(vit: Any, shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of patches in images [b, h, w, c] for a `vit_jax.ViT`.

    Raises:
      InputError: if they have other channels, do not divide into patches, or have too many; or with
        posemb='rope2d', whose angles depend on the grid, if they have another size.
    """
    p1, p2 = pair(vit.patch_size)
    _, h, w, c = shape
    n, found = math.prod(vit.grid), grid((h, w), vit.patch_size)
    if h % p1 or w % p2 or c != vit.channels or math.prod(found) > n:
        raise InputError(
            f'expected images [b, h, w, {vit.channels}] with h a multiple of {p1}, w of {p2} '
            f'and at most {n} patches, got {list(shape)}'
        )
    if vit.posemb == 'rope2d' and found != vit.grid:
        raise InputError(
            f'expected images of {vit.image_size} pixels, got {h} x {w}; '
            f'model.clone(image_size=({h}, {w})) takes them, with the same parameters'
        )
    return found


def num_tokens(vit: Any) -> int:
    """Of an image of `image_size`, with the prefix."""
    return vit.num_prefix + math.prod(vit.grid)


@functools.lru_cache(maxsize=16)
def abstract_variables(vit: Any) -> Any:
    """Shapes and dtypes of a ViT's variables, as `jax.ShapeDtypeStruct`."""
    images = jax.ShapeDtypeStruct((1, *pair(vit.image_size), vit.channels), np.float32)
    vit = vit.clone(attention='xla')  # which every machine has
    return jax.eval_shape(vit.init, jax.random.key(0), images)


def parameter_shapes(vit: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of a ViT's parameters by name, such as 'transformer/attn/norm/scale'."""
    params = flatten_dict(abstract_variables(vit)['params'], sep='/')
    return {name: leaf.shape for name, leaf in params.items()}
