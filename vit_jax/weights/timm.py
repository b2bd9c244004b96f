"""timm's VisionTransformer and DeiTs: the state dict of a `.safetensors`, `.bin` or `.pth` file.

It lacks the number of heads (except with qk-norm). It does not show whether a model with a cls
token pools the patches instead, unless that pooling has its own norm (`fc_norm`), nor whether a
CLIP (`norm_pre`) has the quick GELU.

Source: https://github.com/huggingface/pytorch-image-models, `timm/models/vision_transformer.py`,
`timm/models/deit.py`, `timm/layers/attention_pool.py`; DeiT-3's `gamma_1` from
https://github.com/facebookresearch/deit, `models_v2.py`.
"""

from typing import Any

import numpy as np

from vit_jax.errors import InputError
from vit_jax.model.shapes import pair
from vit_jax.model.vit import ViT
from vit_jax.weights.accounting import Entry, check_expressible, check_projection, linear, norm
from vit_jax.weights.files import Tensors
from vit_jax.weights.infer import (
    count_layers,
    infer_classes,
    infer_positions,
    shape_of,
    split_heads,
)

EXPRESSIBLE = {
    'pool': ('cls', 'gap', 'map'),
    'posemb': ('learned', 'learned_patches'),
    'representation_size': (0,),
    'patch_bias': (True, False),
    'embed_norm': (False, True),
    'gated': (False, True),
}
HEAD_ARRAY = 'head.weight'
RESIZE = 'bicubic'
BLOCK = 'blocks.{}.'


def recognises(tensors: Tensors) -> bool:
    """Whether these are the arrays of timm's VisionTransformer."""
    embeddings = {'patch_embed.proj.weight', 'pos_embed'} <= tensors.keys()
    return embeddings and any(name.startswith('blocks.') for name in tensors)


def infer(tensors: Tensors, known: dict[str, Any]) -> dict[str, Any]:
    """Infers the ViT's arguments from the shapes and from those that are known.

    Raises:
      InputError: if an array is missing, or an argument must be given.
    """
    dim, channels, p1, p2 = shape_of(tensors, 'patch_embed.proj.weight', 4)
    block = BLOCK.format(0)
    inner_dim = shape_of(tensors, f'{block}attn.qkv.weight', 2)[0] // 3
    qk_norm = f'{block}attn.q_norm.weight' in tensors
    heads = known.get('heads')
    if qk_norm:
        heads = inner_dim // shape_of(tensors, f'{block}attn.q_norm.weight', 1)[0]
    mlp_dim = shape_of(tensors, f'{block}mlp.fc2.weight', 2)[1]
    # SwiGLUPacked: the first half of fc1 is the gate.
    gated = shape_of(tensors, f'{block}mlp.fc1.weight', 2)[0] == 2 * mlp_dim
    embed_norm = 'norm_pre.weight' in tensors  # CLIP's
    patch_size = p1 if p1 == p2 else (p1, p2)
    prefix = {
        'class_token': 'cls_token' in tensors,
        'distilled': 'dist_token' in tensors,
        'num_registers': shape_of(tensors, 'reg_token', 3)[1] if 'reg_token' in tensors else 0,
    }
    if 'attn_pool.latent' in tensors:
        pool = 'map'
    else:
        pool = 'cls' if prefix['class_token'] and 'fc_norm.weight' not in tensors else 'gap'
    num_positions = shape_of(tensors, 'pos_embed', 3)[1]
    return {
        **infer_classes(tensors, HEAD_ARRAY, 0, known),
        'patch_size': patch_size,
        'channels': channels,
        'dim': dim,
        'depth': count_layers(tensors, 'blocks.'),
        **split_heads(inner_dim, heads),
        'mlp_dim': mlp_dim,
        **prefix,
        **infer_positions(num_positions, sum(prefix.values()), patch_size, known),
        'pool': pool,
        'fc_norm': 'fc_norm.weight' in tensors,
        'qkv_bias': f'{block}attn.qkv.bias' in tensors,
        'qk_norm': qk_norm,
        'layer_scale': 1e-5 if {f'{block}ls1.gamma', f'{block}gamma_1'} & tensors.keys() else None,
        'patch_bias': 'patch_embed.proj.bias' in tensors,
        'embed_norm': embed_norm,
        'norm_eps': 1e-5 if embed_norm else 1e-6,
        'gelu': 'silu' if gated else 'erf',
        'gated': gated,
    }


def entries(model: ViT, tensors: Tensors | None = None) -> list[Entry]:
    """The layout of the arrays: in a file with these `tensors`, or, without, for writing."""
    gamma = 'gamma_{}' if tensors and BLOCK.format(0) + 'gamma_1' in tensors else 'ls{}.gamma'
    attn, ff, pool = 'transformer/attn', 'transformer/ff', 'mlp_head/attention_pool'
    return [
        Entry('to_patch_embedding/kernel', 'patch_embed.proj.weight', *conv_layout(model)),
        Entry('to_patch_embedding/bias', 'patch_embed.proj.bias'),
        Entry('pos_embedding', 'pos_embed'),
        Entry('cls_token', 'cls_token'),
        Entry('dist_token', 'dist_token'),
        Entry('register_tokens', 'reg_token'),
        *norm('norm_tokens', 'norm_pre'),
        *norm(f'{attn}/norm', BLOCK + 'norm1'),
        *linear(f'{attn}/fn/to_qkv', BLOCK + 'attn.qkv'),
        *norm(f'{attn}/fn/q_norm', BLOCK + 'attn.q_norm'),
        *norm(f'{attn}/fn/k_norm', BLOCK + 'attn.k_norm'),
        *linear(f'{attn}/fn/to_out', BLOCK + 'attn.proj'),
        Entry(f'{attn}/gamma', BLOCK + gamma.format(1)),
        *norm(f'{ff}/norm', BLOCK + 'norm2'),
        *linear(f'{ff}/fn/net_0', BLOCK + 'mlp.fc1'),
        *linear(f'{ff}/fn/net_1', BLOCK + 'mlp.fc2'),
        Entry(f'{ff}/gamma', BLOCK + gamma.format(2)),
        *norm('mlp_head/layers_0', 'fc_norm' if model.fc_norm else 'norm'),
        Entry(f'{pool}/probe', 'attn_pool.latent'),
        *linear(f'{pool}/to_q', 'attn_pool.q'),
        *linear(f'{pool}/to_kv', 'attn_pool.kv'),
        *linear(f'{pool}/to_out', 'attn_pool.proj'),
        *norm(f'{pool}/norm', 'attn_pool.norm'),
        *linear(f'{pool}/net_0', 'attn_pool.mlp.fc1'),
        *linear(f'{pool}/net_1', 'attn_pool.mlp.fc2'),
        *linear('mlp_head/layers_1', 'head'),
        *linear('mlp_head/dist', 'head_dist'),
    ]


def check(model: ViT) -> None:
    """Validates that timm's VisionTransformer computes what the model does.

    Raises:
      InputError: if it does not.
    """
    its = {
        'norm_eps': (1e-5 if model.embed_norm else 1e-6,),
        'patch_bias': (not model.embed_norm,),
        'gelu': ('silu',) if model.gated else ('erf', 'quick') if model.embed_norm else ('erf',),
    }
    if model.gated:
        its['pool'] = ('cls', 'gap')
    check_expressible(model, 'timm', EXPRESSIBLE | its)
    if model.distilled:
        check_expressible(model, 'timm', {'num_registers': (0,), 'posemb': ('learned',)})
    check_projection(model, 'timm')


def read_config(config: dict[str, Any]) -> dict[str, Any]:
    """The metadata in a `config.json` from the hub: 'arguments', 'description', 'notes'.

    Raises:
      InputError: if it asks for something that our ViT does not support.
    """
    pretrained, model_args = config.get('pretrained_cfg') or {}, config.get('model_args') or {}
    gelus = {None: 'erf', 'gelu': 'erf', 'gelu_tanh': 'tanh', 'quick_gelu': 'quick'}
    act = model_args.get('act_layer')
    pool = config.get('global_pool') or pretrained.get('global_pool')
    if act not in gelus or pool not in (None, '', 'token', 'avg', 'map'):
        raise InputError(f'expected act_layer gelu and a known global_pool, got {act!r}, {pool!r}')
    arguments: dict[str, Any] = {} if act is None else {'gelu': gelus[act]}
    if 'num_heads' in model_args:
        arguments['heads'] = model_args['num_heads']
    if 'input_size' in pretrained:
        arguments['image_size'] = tuple(pretrained['input_size'][1:])
    if pool == 'avg':
        arguments['pool'] = 'gap'
    description: dict[str, Any] = {'class_names': config.get('label_names')}
    if {'mean', 'std'} <= pretrained.keys():
        normalisation = {'mean': tuple(pretrained['mean']), 'std': tuple(pretrained['std'])}
        if pretrained.get('crop_mode') != 'squash':
            normalisation['crop_fraction'] = pretrained.get('crop_pct', 0.0)
        description['preprocessing'] = normalisation
    others = {'crop_mode': (None, 'center', 'squash'), 'interpolation': (None, 'bilinear')}
    known = {'act_layer', 'num_heads', 'fc_norm', 'global_pool'}
    notes = differing(pretrained, others)
    if unknown := sorted(model_args.keys() - known):
        notes.append(f'ignored in config.json: model_args {", ".join(unknown)}')
    return {'arguments': arguments, 'description': description, 'notes': notes}


def differing(config: dict[str, Any], same: dict[str, tuple[Any, ...]]) -> list[str]:
    """A note on preprocessing that differs from ours, if any does."""
    found = [f'{k} {config[k]}' for k, values in same.items() if config.get(k) not in values]
    return [f'its preprocessing differs from ours: {", ".join(found)}'] * bool(found)


def conv_layout(model: ViT) -> tuple[Any, Any]:
    """To our patch kernel [(p1 p2 c), d] from a torch convolution's [d, c, p1, p2], and back."""
    p1, p2 = pair(model.patch_size)

    def to_ours(kernel: np.ndarray) -> np.ndarray:
        return kernel.transpose(2, 3, 1, 0).reshape(-1, model.dim)

    def to_theirs(kernel: np.ndarray) -> np.ndarray:
        return kernel.reshape(p1, p2, model.channels, model.dim).transpose(3, 2, 0, 1)

    return to_ours, to_theirs
