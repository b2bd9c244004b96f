"""The arguments of a ViT: their names, which of them are stored with a model, and their checks."""

import dataclasses
import math
from typing import Any

from vit_jax.errors import InputError
from vit_jax.model.extras import Extras
from vit_jax.model.shapes import pair

CHOICES = {
    'pool': ('cls', 'mean', 'gap', 'cls_gap', 'map'),
    'posemb': ('learned', 'learned_patches', 'sincos2d', 'rope2d'),
    'gelu': ('erf', 'tanh', 'quick', 'silu'),
    'attention': ('auto', 'xla', 'cudnn', 'pallas'),
    'lora_kernels': ('all', 'attention'),
    'dtype': ('float32', 'bfloat16'),
    'remat': ('none', 'dots', 'full'),
}

# These affect only how the model is executed, so they are not stored with it.
EXECUTION = ('attention', 'remat', 'unroll')


def argument_names(vit: Any) -> list[str]:
    """Names of the arguments of a ViT or its class: the seed's first, then the extras."""
    names = [field.name for field in dataclasses.fields(vit)]
    extras = [field.name for field in dataclasses.fields(Extras)]
    return [name for name in names if name not in (*extras, 'parent', 'name')] + extras


def stored_arguments(vit: Any) -> dict[str, Any]:
    """The arguments that are stored with a model: all that its parameters and outputs depend on."""
    return {name: getattr(vit, name) for name in argument_names(vit) if name not in EXECUTION}


def check_arguments(vit: Any) -> None:
    """Validates the arguments of a `vit_jax.ViT`.

    Raises:
      InputError: if one is out of range, or two do not fit together.
    """
    sizes = ('dim', 'depth', 'heads', 'mlp_dim', 'channels', 'dim_head', 'unroll')
    for name in sizes:
        if not isinstance(value := getattr(vit, name), int) or not 1 <= value <= 2**20:
            raise InputError(f'expected {name} a whole number from 1 to 1,048,576, got {value!r}')
    if vit.depth > 2**12:
        raise InputError(f'expected a depth of at most 4,096, got {vit.depth:,}')
    rates = 'dropout', 'emb_dropout', 'head_dropout', 'attn_dropout', 'drop_path'
    for name in (*rates, 'norm_eps'):
        value = getattr(vit, name)
        if not isinstance(value, int | float) or not 0 <= value < 1:
            raise InputError(f'expected {name} from 0 to below 1, got {value!r}')
    scale = vit.layer_scale
    if scale is not None and not (isinstance(scale, int | float) and abs(scale) < 3e38):
        raise InputError(f'expected layer_scale a float32 number or None, got {scale!r}')
    flags = ('class_token', 'distilled', 'patch_bias', 'embed_norm', 'qkv_bias', 'qk_norm')
    for name in (*flags, 'gated', 'fc_norm'):
        if not isinstance(value := getattr(vit, name), bool):
            raise InputError(f'expected {name} True or False, got {value!r}')
    for name, known in CHOICES.items():
        if getattr(vit, name) not in known:
            raise InputError(f'expected {name} out of {known}, got {getattr(vit, name)!r}')
    most = dict.fromkeys(('num_registers', 'representation_size', 'lora_rank'), 2**16)
    for name, limit in (most | {'num_classes': 2**20}).items():
        if not isinstance(value := getattr(vit, name), int) or not 0 <= value <= limit:
            raise InputError(f'expected {name} a whole number from 0 to {limit:,}, got {value!r}')
    if vit.pool in ('cls', 'cls_gap') and not vit.class_token:
        raise InputError(
            f"pool={vit.pool!r}: expected class_token=True; or choose pool='gap' or 'map'"
        )
    if vit.distilled and vit.pool != 'cls':
        raise InputError(f"distilled: expected pool='cls', got {vit.pool!r}")
    if vit.fc_norm and vit.pool != 'gap':
        raise InputError(f"fc_norm: expected pool='gap', got {vit.pool!r}")
    if vit.posemb == 'sincos2d' and (vit.dim % 4 or vit.dim < 8):
        raise InputError(f"posemb='sincos2d': expected dim a multiple of 4 from 8, got {vit.dim}")
    if vit.posemb == 'rope2d' and vit.dim_head % 4:
        raise InputError(f"posemb='rope2d': expected dim_head a multiple of 4, got {vit.dim_head}")
    theta = vit.rope_theta
    if not isinstance(theta, int | float) or not 1 <= theta <= 1e9:
        raise InputError(f'expected rope_theta from 1 to 1e9, got {theta!r}')
    if vit.attn_dropout and vit.attention not in ('auto', 'xla'):
        raise InputError(f"attn_dropout: expected attention='auto' or 'xla', got {vit.attention!r}")
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
