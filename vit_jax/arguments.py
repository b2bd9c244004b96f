"""What the arguments of a ViT may be."""

import dataclasses
import math
from typing import Any

from vit_jax.errors import InputError

CHOICES = {
    'pool': ('cls', 'mean', 'gap', 'map'),
    'posemb': ('learned', 'learned_patches', 'sincos2d'),
    'gelu': ('erf', 'tanh'),
    'attention': ('xla', 'cudnn'),
    'dtype': ('float32', 'bfloat16'),
    'remat': ('none', 'dots', 'full'),
}


# Say how a machine computes, and not what: nothing of them is kept with a trained model.
EXECUTION = ('attention', 'remat', 'unroll')


def argument_names(module: Any) -> list[str]:
    """Names of the arguments that a linen module, or its class, is built with."""
    names = [field.name for field in dataclasses.fields(module)]
    return [name for name in names if name not in ('parent', 'name')]


def arguments_for(module: Any, owner: Any) -> dict[str, Any]:
    """The arguments of a module that are all among another's: its part, or a changed copy."""
    return {name: getattr(owner, name) for name in argument_names(module)}


def check_arguments(vit: Any) -> None:
    """Holds the arguments of a `vit_jax.ViT` against what it can be built of.

    Raises:
      InputError: where one is out of its range, or two do not fit together.
    """
    sizes = ('num_classes', 'dim', 'depth', 'heads', 'mlp_dim', 'channels', 'dim_head', 'unroll')
    for name in sizes:
        if not isinstance(value := getattr(vit, name), int) or not 1 <= value <= 2**20:
            raise InputError(f'expected {name} a whole number from 1 to 1,048,576, got {value!r}')
    for name in ('dropout', 'emb_dropout', 'norm_eps'):
        value = getattr(vit, name)
        if not isinstance(value, int | float) or not 0 <= value < 1:
            raise InputError(f'expected {name} from 0 to below 1, got {value!r}')
    if not isinstance(vit.layer_scale, int | float | None):
        raise InputError(f'expected layer_scale a number or None, got {vit.layer_scale!r}')
    for name in ('class_token', 'distilled', 'qkv_bias', 'qk_norm', 'fc_norm'):
        if not isinstance(value := getattr(vit, name), bool):
            raise InputError(f'expected {name} True or False, got {value!r}')
    for name, known in CHOICES.items():
        if getattr(vit, name) not in known:
            raise InputError(f'expected {name} out of {known}, got {getattr(vit, name)!r}')
    for name in ('num_registers', 'representation_size'):
        if not isinstance(value := getattr(vit, name), int) or value < 0:
            raise InputError(f'expected {name} a whole number of at least 0, got {value!r}')
    if vit.pool == 'cls' and not vit.class_token:
        raise InputError("pool='cls': expected class_token=True; or choose pool='gap' or 'map'")
    if vit.distilled and vit.pool != 'cls':
        raise InputError(f"distilled: expected pool='cls', got {vit.pool!r}")
    if vit.fc_norm and vit.pool != 'gap':
        raise InputError(f"fc_norm: expected pool='gap', got {vit.pool!r}")
    if vit.posemb == 'sincos2d' and (vit.dim % 4 or vit.dim < 8):
        raise InputError(f"posemb='sincos2d': expected dim a multiple of 4 from 8, got {vit.dim}")
    if vit.attention == 'cudnn' and (vit.dtype != 'bfloat16' or vit.dim_head % 8):
        raise InputError(
            f"attention='cudnn': expected dtype='bfloat16' and dim_head a multiple of 8, got "
            f"{vit.dtype!r} and {vit.dim_head}; or choose attention='xla'"
        )
    height, width = pair(vit.image_size)
    patch_height, patch_width = pair(vit.patch_size)
    if height % patch_height or width % patch_width:
        raise InputError(
            f'patch_size must divide image_size: expected a divisor of {height} x {width} pixels, '
            f'got {patch_height} x {patch_width}; change either'
        )
    if math.prod(vit.grid) > 2**16:
        raise InputError(f'expected at most 65,536 patches, got {math.prod(vit.grid):,}')


def check_images(vit: Any, shape: tuple[int, ...]) -> None:
    """Holds the shape of images [b, h, w, c] against a `vit_jax.ViT`.

    Raises:
      InputError: where they have other channels, are not made of patches, or of too many.
    """
    p1, p2 = pair(vit.patch_size)
    _, h, w, c = shape
    n = math.prod(vit.grid)
    if h % p1 or w % p2 or c != vit.channels or (h // p1) * (w // p2) > n:
        raise InputError(
            f'expected images [b, h, w, {vit.channels}] with h a multiple of {p1}, w of {p2} '
            f'and at most {n} patches, got {list(shape)}'
        )


def pair(t: int | tuple[int, int]) -> tuple[int, int]:
    """A size in pixels as (height, width); an int is a square.

    Raises:
      InputError: where it is neither.
    """
    height_width = t if isinstance(t, tuple) else (t, t)
    in_range = all(isinstance(x, int) and 0 < x < 2**16 for x in height_width)
    if len(height_width) != 2 or not in_range:
        raise InputError(
            f'expected a size in pixels below 65,536, an int or (height, width), got {t!r}'
        )
    return height_width
