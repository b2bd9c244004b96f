"""Google's `.npz`: checkpoints of vision_transformer and big_vision, in all their layouts.

Modules are numbered as before linen ('MlpBlock_3') or as in linen ('MlpBlock_0'). Layers are
separate or stacked. The position embedding is in the Transformer and covers the cls token, or is at
the root and does not. All of it may lie under a prefix, next to an optimizer's state or a text
tower. We write the oldest layout that can express the model, which all readers know. All of these
models take pixels from -1 to 1.

Sources: https://github.com/google-research/vision_transformer, `vit_jax/checkpoint.py`;
https://github.com/google-research/big_vision, `big_vision/models/vit.py`.
"""

from typing import Any

import numpy as np

from vit_jax.errors import InputError
from vit_jax.model.shapes import pair
from vit_jax.model.vit import ViT
from vit_jax.weights.accounting import Entry, check_expressible, check_projection, norm
from vit_jax.weights.files import Tensors
from vit_jax.weights.infer import count_layers, infer_classes, infer_positions, shape_of

EXPRESSIBLE = {
    'pool': ('cls', 'gap', 'map'),
    'distilled': (False,),
    'num_registers': (0,),
    'qkv_bias': (True,),
    'qk_norm': (False,),
    'layer_scale': (None,),
    'fc_norm': (False,),
    'norm_eps': (1e-6,),
    'gelu': ('tanh',),
}
DESCRIPTION = {'preprocessing': {'mean': (0.5,), 'std': (0.5,)}}
HEAD_ARRAY = 'head/kernel'
RESIZE = 'bilinear'
OLD_POSITIONS = 'Transformer/posembed_input/pos_embedding'
POSITIONS = (OLD_POSITIONS, 'Transformer/pos_embedding', 'pos_embedding')
OLD_BLOCK = ('LayerNorm_0', 'MultiHeadDotProductAttention_1', 'LayerNorm_2', 'MlpBlock_3')
BLOCK = ('LayerNorm_0', 'MultiHeadDotProductAttention_0', 'LayerNorm_1', 'MlpBlock_0')


def recognises(tensors: Tensors) -> bool:
    """Whether these are the arrays of one of Google's ViTs, at the root."""
    return {'embedding/kernel', 'Transformer/encoder_norm/scale'} <= tensors.keys()


def find_prefix(tensors: Tensors) -> str:
    """The prefix of a ViT's array names: 'params/', 'opt/target/', … or ''."""
    mark = 'Transformer/encoder_norm/scale'
    prefixes = [name.removesuffix(mark) for name in tensors if name.endswith('/' + mark)]
    vits = [p for p in prefixes if p + 'embedding/kernel' in tensors]
    return vits[0] if len(vits) == 1 else ''


def infer(tensors: Tensors, known: dict[str, Any]) -> dict[str, Any]:
    """Infers the ViT's arguments from the shapes and from those that are known.

    Raises:
      InputError: if an array is missing, or an argument must be given.
    """
    p1, p2, channels, dim = shape_of(tensors, 'embedding/kernel', 4)
    block, (_, attention, _, mlp) = _block(tensors)
    stacked = '{}' not in block
    block = block.format(0)
    query = shape_of(tensors, f'{block}{attention}/query/kernel', 3 + stacked)
    mlp_dim = shape_of(tensors, f'{block}{mlp}/Dense_0/kernel', 2 + stacked)[-1]
    patch_size = p1 if p1 == p2 else (p1, p2)
    pre_logits = 'pre_logits/kernel'
    positions = next((name for name in POSITIONS if name in tensors), None)
    if positions:
        if positions == OLD_POSITIONS:
            known = {'posemb': 'learned', **known}
        length = shape_of(tensors, positions, 3)[1]
        images = infer_positions(length, 'cls' in tensors, patch_size, known)
    else:
        images = {'image_size': _sincos2d_size(patch_size, known), 'posemb': 'sincos2d'}
    return {
        **images,
        **infer_classes(tensors, HEAD_ARRAY, 1, known),
        'patch_size': patch_size,
        'channels': channels,
        'dim': dim,
        'depth': query[0] if stacked else count_layers(tensors, 'Transformer/encoderblock_'),
        'heads': query[-2],
        'dim_head': query[-1],
        'mlp_dim': mlp_dim,
        'pool': 'map' if _map_head(tensors) is not None else 'cls' if 'cls' in tensors else 'gap',
        'class_token': 'cls' in tensors,
        'representation_size': shape_of(tensors, pre_logits, 2)[1] if pre_logits in tensors else 0,
        'qkv_bias': True,
        'norm_eps': 1e-6,
        'gelu': 'tanh',
    }


def entries(model: ViT, tensors: Tensors | None = None) -> list[Entry]:
    """The layout of the arrays: in a file with these `tensors`, or, without, for writing."""
    if tensors is not None:
        block, modules = _block(tensors)
        positions = next((name for name in POSITIONS if name in tensors), OLD_POSITIONS)
        map_head = _map_head(tensors) or ''
    else:
        old = model.pool == 'cls' and model.posemb == 'learned'
        block, modules = 'Transformer/encoderblock_{}/', OLD_BLOCK if old else BLOCK
        positions = OLD_POSITIONS if old else 'pos_embedding'
        map_head = 'MAPHead_0/'
    norm1, attention, norm2, mlp = (block + module for module in modules)
    pool = 'mlp_head/attention_pool'
    pool_attention = f'{map_head}MultiHeadDotProductAttention_0'
    p1, p2 = pair(model.patch_size)

    def patches(kernel: np.ndarray) -> np.ndarray:
        return kernel.reshape(p1, p2, model.channels, model.dim)

    return [
        Entry('to_patch_embedding/kernel', 'embedding/kernel', _flat_patches, patches),
        Entry('to_patch_embedding/bias', 'embedding/bias'),
        Entry('pos_embedding', positions),
        Entry('cls_token', 'cls'),
        *_norm('transformer/attn/norm', norm1),
        *_to_heads('transformer/attn/fn/to_qkv', attention, ('query', 'key', 'value'), model.heads),
        *_from_heads('transformer/attn/fn/to_out', f'{attention}/out', model.heads),
        *_norm('transformer/ff/norm', norm2),
        *_dense('transformer/ff/fn/net_0', f'{mlp}/Dense_0'),
        *_dense('transformer/ff/fn/net_1', f'{mlp}/Dense_1'),
        *_norm('mlp_head/layers_0', 'Transformer/encoder_norm'),
        Entry(f'{pool}/probe', f'{map_head}probe'),
        *_to_heads(f'{pool}/to_q', pool_attention, ('query',), model.heads),
        *_to_heads(f'{pool}/to_kv', pool_attention, ('key', 'value'), model.heads),
        *_from_heads(f'{pool}/to_out', f'{pool_attention}/out', model.heads),
        *_norm(f'{pool}/norm', f'{map_head}LayerNorm_0'),
        *_dense(f'{pool}/net_0', f'{map_head}MlpBlock_0/Dense_0'),
        *_dense(f'{pool}/net_1', f'{map_head}MlpBlock_0/Dense_1'),
        *_dense('mlp_head/pre_logits', 'pre_logits'),
        *_dense('mlp_head/layers_1', 'head'),
    ]


def check(model: ViT) -> None:
    """Validates that Google's ViTs compute what the model does.

    Raises:
      InputError: if they do not.
    """
    check_expressible(model, 'google', EXPRESSIBLE)
    check_expressible(model, 'google', {'class_token': (model.pool == 'cls',)})
    check_projection(model, 'google')


def _sincos2d_size(patch_size: int | tuple[int, int], known: dict[str, Any]) -> tuple[int, int]:
    """The image size of the known or wanted grid; no array determines it.

    Raises:
      InputError: if no grid is known or wanted.
    """
    if known.get('grid'):
        rows, columns = pair(known['grid'])
    elif image_size := known.get('image_size') or known.get('wanted_size'):
        sizes = zip(pair(image_size), pair(known.get('patch_size', patch_size)), strict=True)
        rows, columns = (image // patch for image, patch in sizes)
    else:
        raise InputError('the image size of a sincos2d model is not in the file; give image_size=')
    p1, p2 = pair(patch_size)
    return rows * p1, columns * p2


def _block(tensors: Tensors) -> tuple[str, tuple[str, ...]]:
    """The prefix of a layer's modules, and their names."""
    stacked = any(name.startswith('Transformer/encoderblock/') for name in tensors)
    old = any('/MlpBlock_3/' in name for name in tensors)
    block = 'Transformer/encoderblock/' if stacked else 'Transformer/encoderblock_{}/'
    return block, OLD_BLOCK if old else BLOCK


def _map_head(tensors: Tensors) -> str | None:
    """The prefix of the attention pooling head; None if there is none."""
    return next((p for p in ('MAPHead_0/', '') if f'{p}probe' in tensors), None)


def _norm(ours: str, theirs: str) -> list[Entry]:
    return norm(ours, theirs, '/scale', '/bias')


def _dense(ours: str, theirs: str) -> list[Entry]:
    return [Entry(f'{ours}/{name}', f'{theirs}/{name}') for name in ('kernel', 'bias')]


def _to_heads(ours: str, theirs: str, names: tuple[str, ...], heads: int) -> list[Entry]:
    """Our [in, (h d)] from their [in, h, d], biases without `in`; any leading axes."""

    def split(array: np.ndarray) -> np.ndarray:
        return array.reshape(*array.shape[:-1], heads, -1)

    def join(array: np.ndarray) -> np.ndarray:
        return array.reshape(*array.shape[:-2], -1)

    return [
        Entry(f'{ours}/{kind}', tuple(f'{theirs}/{name}/{kind}' for name in names), join, split)
        for kind in ('kernel', 'bias')
    ]


def _from_heads(ours: str, theirs: str, heads: int) -> list[Entry]:
    """Our [(h d), out] from their [h, d, out]; any leading axes."""

    def split(array: np.ndarray) -> np.ndarray:
        return array.reshape(*array.shape[:-2], heads, -1, array.shape[-1])

    def join(array: np.ndarray) -> np.ndarray:
        return array.reshape(*array.shape[:-3], -1, array.shape[-1])

    return [
        Entry(f'{ours}/kernel', f'{theirs}/kernel', join, split),
        Entry(f'{ours}/bias', f'{theirs}/bias'),
    ]


def _flat_patches(kernel: np.ndarray) -> np.ndarray:
    return kernel.reshape(-1, kernel.shape[-1])
