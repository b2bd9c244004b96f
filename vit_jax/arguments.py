"""What the arguments of a ViT may be."""

from typing import Any

from vit_jax.errors import InputError

CHOICES = {
    'pool': ('cls', 'mean'),
    'gelu': ('erf', 'tanh'),
    'attention': ('xla', 'cudnn'),
    'dtype': ('float32', 'bfloat16'),
    'remat': ('none', 'dots', 'full'),
}


# Say how a machine computes, and not what: nothing of them is kept with a trained model.
EXECUTION = ('attention', 'remat', 'unroll')


def check_arguments(vit: Any) -> None:
    """Holds the arguments of a `vit_jax.ViT` against what it can be built of.

    Raises:
      InputError: where one is out of its range, or two do not fit together.
    """
    sizes = ('num_classes', 'dim', 'depth', 'heads', 'mlp_dim', 'channels', 'dim_head', 'unroll')
    for name in sizes:
        if getattr(vit, name) < 1:
            raise InputError(f'expected {name} of at least 1, got {getattr(vit, name)}')
    for name in ('dropout', 'emb_dropout', 'norm_eps'):
        if not 0 <= getattr(vit, name) < 1:
            raise InputError(f'expected {name} from 0 to below 1, got {getattr(vit, name)}')
    for name, known in CHOICES.items():
        if getattr(vit, name) not in known:
            raise InputError(f'expected {name} out of {known}, got {getattr(vit, name)!r}')
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


def pair(t: int | tuple[int, int]) -> tuple[int, int]:
    """A size in pixels as (height, width); an int is a square.

    Raises:
      InputError: where it is neither.
    """
    height_width = t if isinstance(t, tuple) else (t, t)
    if len(height_width) != 2 or not all(isinstance(x, int) and x > 0 for x in height_width):
        raise InputError(f'expected a size in pixels, an int or (height, width), got {t!r}')
    return height_width
