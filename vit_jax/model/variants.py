"""The published variants by name: 'B/16' is Base with patches of 16 pixels.

The sizes are those of "An image is worth 16x16 words" (https://arxiv.org/abs/2010.11929), "Scaling
vision transformers" (https://arxiv.org/abs/2106.04560) and SoViT (https://arxiv.org/abs/2305.13035)
as in big_vision's `models/vit.py` (https://github.com/google-research/big_vision).
"""

from typing import Any

from vit_jax.errors import InputError
from vit_jax.model.vit import ViT

# dim, depth, mlp_dim, heads
VARIANTS = {
    'Ti': (192, 12, 768, 3),
    'S': (384, 12, 1536, 6),
    'M': (512, 12, 2048, 8),
    'B': (768, 12, 3072, 12),
    'L': (1024, 24, 4096, 16),
    'So400m': (1152, 27, 4304, 16),
    'H': (1280, 32, 5120, 16),
    'g': (1408, 40, 6144, 16),
    'G': (1664, 48, 8192, 16),
}

# What a config gets that sets neither a variant nor sizes: a ViT for images of about 32 pixels.
DEFAULT_SIZES = {'patch_size': 4, 'dim': 192, 'depth': 9, 'heads': 3, 'mlp_dim': 768}


def create_model(
    name: str, *, num_classes: int = 1000, image_size: int | tuple[int, int] = 224, **options: Any
) -> ViT:
    """A ViT with the sizes of a published variant.

    Args:
      name: NAME/PATCH, such as 'B/16' or 'So400m/14', the patch size in pixels.
      num_classes: number of logits.
      image_size: pixels, an int or (height, width); a multiple of the patch size.
      **options: other arguments of `ViT`; these win over the variant's.

    Raises:
      InputError: if there is no such variant, or an option does not fit.
    """
    arguments = {
        'num_classes': num_classes,
        'image_size': image_size,
        **variant_arguments(name),
        **options,
    }
    if unknown := set(arguments) - set(ViT.__dataclass_fields__):
        raise InputError(f'{name}: expected arguments of ViT, got {", ".join(sorted(unknown))}')
    return ViT(**arguments)


def variant_arguments(name: str) -> dict[str, Any]:
    """The arguments of `ViT` that a variant's name stands for.

    They include the qkv bias, norm epsilon and tanh GELU of the published weights, which differ
    from `ViT`'s defaults.

    Raises:
      InputError: if there is no such variant.
    """
    size, _, patch = name.partition('/')
    if size not in VARIANTS or not patch.isdecimal():
        raise InputError(
            f"expected a variant such as 'B/16', a size out of {', '.join(VARIANTS)} and a patch "
            f'in pixels, got {name!r}'
        )
    dim, depth, mlp_dim, heads = VARIANTS[size]
    return {
        'patch_size': int(patch),
        'dim': dim,
        'depth': depth,
        'heads': heads,
        'dim_head': dim // heads,
        'mlp_dim': mlp_dim,
        'qkv_bias': True,
        'norm_eps': 1e-6,
        'gelu': 'tanh',
    }
