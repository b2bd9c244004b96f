"""Hugging Face's state dict of ViTForImageClassification; for its folder see `huggingface_folder`.

A ViTModel is read too; its pooler is a tanh layer, our `representation_size`, and it has no head.
Version 5 of transformers uses other names in memory than in files; we read both, and write those of
the files.

Source: https://github.com/huggingface/transformers, `models/vit`.
"""

from typing import Any

from vit_jax.errors import InputError
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
from vit_jax.weights.timm import conv_layout

EXPRESSIBLE = {
    'pool': ('cls',),
    'posemb': ('learned',),
    'distilled': (False,),
    'num_registers': (0,),
    'qk_norm': (False,),
    'layer_scale': (None,),
    'representation_size': (0,),
}
HEAD_ARRAY = 'classifier.weight'
PROJECTION = 'embeddings.patch_embeddings.projection'
OLD_LAYER, LAYER = 'encoder.layer.{}.', 'layers.{}.'
# Names of a layer's modules in files, and in memory in version 5.
OLD_NAMES = {
    'q': 'attention.attention.query',
    'k': 'attention.attention.key',
    'v': 'attention.attention.value',
    'out': 'attention.output.dense',
    'fc1': 'intermediate.dense',
    'fc2': 'output.dense',
}
NAMES = {
    'q': 'attention.q_proj',
    'k': 'attention.k_proj',
    'v': 'attention.v_proj',
    'out': 'attention.o_proj',
    'fc1': 'mlp.fc1',
    'fc2': 'mlp.fc2',
}


def recognises(tensors: Tensors) -> bool:
    """Whether these are the arrays of transformers' ViT."""
    return any(name.endswith(f'{PROJECTION}.weight') for name in tensors)


def infer(tensors: Tensors, known: dict[str, Any]) -> dict[str, Any]:
    """Infers the ViT's arguments from the shapes and `config.json`.

    Raises:
      InputError: if an array or `config.json` is missing.
    """
    vit, layer, names = _layout(tensors)
    if 'norm_eps' not in known:
        raise InputError('expected the folder with config.json, got a file without it')
    dim, channels, p1, p2 = shape_of(tensors, f'{vit}{PROJECTION}.weight', 4)
    patch_size = p1 if p1 == p2 else (p1, p2)
    inner_dim = shape_of(tensors, f'{vit}{layer.format(0)}{names["q"]}.weight', 2)[0]
    length = shape_of(tensors, f'{vit}embeddings.position_embeddings', 3)[1]
    pooler = f'{vit}pooler.dense.weight'
    is_vit_model = pooler in tensors and HEAD_ARRAY not in tensors
    return {
        **infer_classes(tensors, HEAD_ARRAY, 0, known),
        'patch_size': patch_size,
        'channels': channels,
        'dim': dim,
        'depth': count_layers(tensors, vit + layer.split('{}')[0]),
        **split_heads(inner_dim, known.get('heads')),
        'mlp_dim': shape_of(tensors, f'{vit}{layer.format(0)}{names["fc1"]}.weight', 2)[0],
        # ViTForImageClassification does not use a pooler.
        'representation_size': shape_of(tensors, pooler, 2)[0] if is_vit_model else 0,
        **infer_positions(length, 1, patch_size, {'posemb': 'learned', **known}),
    }


def check(model: ViT) -> None:
    """Validates that ViTForImageClassification computes what the model does.

    Raises:
      InputError: if it does not.
    """
    check_expressible(model, 'huggingface', EXPRESSIBLE)
    check_projection(model, 'huggingface')


def entries(model: ViT, tensors: Tensors | None = None) -> list[Entry]:
    """The layout of the arrays: in a file with these `tensors`, or, without, for writing."""
    vit, layer, names = _layout(tensors) if tensors else ('vit.', OLD_LAYER, OLD_NAMES)
    layer = vit + layer
    qkv = tuple(layer + names[name] for name in ('q', 'k', 'v'))
    return [
        Entry('to_patch_embedding/kernel', f'{vit}{PROJECTION}.weight', *conv_layout(model)),
        Entry('to_patch_embedding/bias', f'{vit}{PROJECTION}.bias'),
        Entry('pos_embedding', f'{vit}embeddings.position_embeddings'),
        Entry('cls_token', f'{vit}embeddings.cls_token'),
        *norm('transformer/attn/norm', layer + 'layernorm_before'),
        *linear('transformer/attn/fn/to_qkv', qkv),
        *linear('transformer/attn/fn/to_out', layer + names['out']),
        *norm('transformer/ff/norm', layer + 'layernorm_after'),
        *linear('transformer/ff/fn/net_0', layer + names['fc1']),
        *linear('transformer/ff/fn/net_1', layer + names['fc2']),
        *norm('mlp_head/layers_0', f'{vit}layernorm'),
        *linear('mlp_head/pre_logits', f'{vit}pooler.dense'),
        *linear('mlp_head/layers_1', 'classifier'),
    ]


def _layout(tensors: Tensors) -> tuple[str, str, dict[str, str]]:
    """The prefix of the ViT's arrays, that of a layer's arrays, and the names within a layer."""
    vit = 'vit.' if f'vit.{PROJECTION}.weight' in tensors else ''
    old = any(name.startswith(f'{vit}encoder.layer.') for name in tensors)
    return vit, OLD_LAYER if old else LAYER, OLD_NAMES if old else NAMES
