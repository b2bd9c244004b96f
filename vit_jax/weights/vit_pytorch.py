"""vit-pytorch's state dict (`vit_pytorch/vit.py`, versions 0.24 to 0.27), read and written.

It lacks the number of heads, the pooling ('cls' or 'mean') and the shape of the patches: unless
given, they are square, and RGB if that fits, else grey.
"""

import math
from typing import Any

from vit_jax.errors import InputError
from vit_jax.model.shapes import pair
from vit_jax.model.vit import ViT
from vit_jax.weights.accounting import Entry, check_expressible, linear, norm
from vit_jax.weights.files import Tensors
from vit_jax.weights.infer import (
    count_layers,
    infer_classes,
    infer_positions,
    shape_of,
    split_heads,
)

LAYER = 'transformer.layers.{}.'
EXPRESSIBLE = {
    'pool': ('cls', 'mean'),
    'posemb': ('learned',),
    'class_token': (True,),
    'distilled': (False,),
    'num_registers': (0,),
    'qkv_bias': (False,),
    'qk_norm': (False,),
    'layer_scale': (None,),
    'representation_size': (0,),
    'norm_eps': (1e-5,),
    'gelu': ('erf',),
}
HEAD_ARRAY = 'mlp_head.1.weight'
RESIZE = 'bilinear'


def recognises(tensors: Tensors) -> bool:
    """Whether these are the arrays of vit-pytorch's ViT."""
    return {'pos_embedding', 'cls_token', 'to_patch_embedding.1.weight'} <= tensors.keys()


def entries(model: ViT, tensors: Tensors | None = None) -> list[Entry]:
    """The layout of the arrays."""
    return [
        *linear('to_patch_embedding', 'to_patch_embedding.1'),
        Entry('pos_embedding', 'pos_embedding'),
        Entry('cls_token', 'cls_token'),
        *norm('transformer/attn/norm', LAYER + '0.norm'),
        *linear('transformer/attn/fn/to_qkv', LAYER + '0.fn.to_qkv'),
        *linear('transformer/attn/fn/to_out', LAYER + '0.fn.to_out.0'),
        *norm('transformer/ff/norm', LAYER + '1.norm'),
        *linear('transformer/ff/fn/net_0', LAYER + '1.fn.net.0'),
        *linear('transformer/ff/fn/net_1', LAYER + '1.fn.net.3'),
        *norm('mlp_head/layers_0', 'mlp_head.0'),
        *linear('mlp_head/layers_1', 'mlp_head.1'),
    ]


def check(model: ViT) -> None:
    """Validates that vit-pytorch's ViT computes what the model does.

    Raises:
      InputError: if it does not.
    """
    check_expressible(model, 'seed', EXPRESSIBLE)


def infer(tensors: Tensors, known: dict[str, Any]) -> dict[str, Any]:
    """Infers the ViT's arguments from the shapes and from those that are known.

    Raises:
      InputError: if an array is missing, or an argument must be given.
    """
    dim, patch_dim = shape_of(tensors, 'to_patch_embedding.1.weight', 2)
    first = LAYER.format(0)
    inner_dim = shape_of(tensors, first + '0.fn.to_qkv.weight', 2)[0] // 3
    projects_out = first + '0.fn.to_out.0.weight' in tensors  # else one head, as wide as the tokens
    heads = known.get('heads') if projects_out else 1
    patch_size, channels = _infer_patch(patch_dim, known)
    num_positions = shape_of(tensors, 'pos_embedding', 3)[1]
    return {
        **infer_classes(tensors, HEAD_ARRAY, 0, known),
        'patch_size': patch_size,
        'channels': channels,
        'dim': dim,
        'depth': count_layers(tensors, 'transformer.layers.'),
        **split_heads(inner_dim, heads),
        'mlp_dim': shape_of(tensors, first + '1.fn.net.0.weight', 2)[0],
        **infer_positions(num_positions, 1, patch_size, {'posemb': 'learned', **known}),
    }


def _infer_patch(patch_dim: int, known: dict[str, Any]) -> tuple[int | tuple[int, int], int]:
    """Patch size and channels: the known ones, else square, and RGB before grey."""
    channels = (known['channels'],) if 'channels' in known else (3, 1)
    height, width = pair(known.get('patch_size', 1))
    for c in channels:
        if 'patch_size' in known and height * width * c == patch_dim:
            return known['patch_size'], c
    for c in channels:
        side = math.isqrt(patch_dim // max(c, 1))
        if side * side * c == patch_dim:
            return side, c
    raise InputError(
        f'expected square patches of RGB or grey, got {patch_dim} numbers per patch; '
        f'give patch_size=(height, width) or channels='
    )
