"""SigLIP's vision tower, alone or in the full model, and its classifier.

The tower pools with a learned query; SiglipForImageClassification averages the patches instead.

Source: https://github.com/huggingface/transformers, `models/siglip`.
"""

import dataclasses
from typing import Any

import numpy as np

from vit_jax.model.vit import ViT
from vit_jax.weights.families.family import CLASSIFIER, POOL, Config, Family
from vit_jax.weights.files import Arrays, Stored, Tensors

LAYER = 'encoder.layers.{}.'
LAYERS: dict[str, str | tuple[str, ...]] = {
    'to_patch_embedding': 'embeddings.patch_embedding',
    'pos_embedding': 'embeddings.position_embedding.weight',
    'transformer/attn/norm': LAYER + 'layer_norm1',
    'transformer/attn/fn/to_qkv': tuple(f'{LAYER}self_attn.{x}_proj' for x in 'qkv'),
    'transformer/attn/fn/to_out': LAYER + 'self_attn.out_proj',
    'transformer/ff/norm': LAYER + 'layer_norm2',
    'transformer/ff/fn/net_0': LAYER + 'mlp.fc1',
    'transformer/ff/fn/net_1': LAYER + 'mlp.fc2',
    'mlp_head/layers_0': 'post_layernorm',
}
HEAD = 'head.'
QUERY, KEY, VALUE = (f'{HEAD}attention.in_proj {part}' for part in ('query', 'key', 'value'))
POOLING: dict[str, str | tuple[str, ...]] = {
    f'{POOL}/probe': HEAD + 'probe',
    f'{POOL}/to_q': QUERY,
    f'{POOL}/to_kv': (KEY, VALUE),
    f'{POOL}/to_out': HEAD + 'attention.out_proj',
    f'{POOL}/norm': HEAD + 'layernorm',
    f'{POOL}/net_0': HEAD + 'mlp.fc1',
    f'{POOL}/net_1': HEAD + 'mlp.fc2',
}
# Left out of config.json where they are a B's.
SIZES = {
    'hidden_size': 768,
    'intermediate_size': 3072,
    'num_hidden_layers': 12,
    'num_attention_heads': 12,
    'num_channels': 3,
    'image_size': 224,
}
TEXT = ('text_model.', 'text_projection.', 'logit_scale', 'logit_bias')


def unpack(tensors: Tensors, prefix: str, config: Config) -> Tensors:
    """Splits the projections of query, key and value, which are one array."""
    tensors = dict(tensors)
    for kind in ('weight', 'bias'):
        joined = tensors.pop(f'{prefix}{HEAD}attention.in_proj_{kind}', None)
        if joined is None or not joined.shape:
            continue
        length, *others = joined.shape
        for i, part in enumerate((QUERY, KEY, VALUE)):

            def read(joined: Stored = joined, i: int = i) -> np.ndarray:
                return np.split(joined.read(), 3)[i]

            # The shape of one that has no three equal parts fits no model.
            shape = (length // 3 if length % 3 == 0 else length, *others)
            tensors[f'{prefix}{part}.{kind}'] = Stored(shape, joined.dtype, read)
    return tensors


def pack(arrays: Arrays, prefix: str, model: ViT) -> Arrays:
    arrays = dict(arrays)
    for kind in ('weight', 'bias'):
        parts = [arrays.pop(f'{prefix}{part}.{kind}') for part in (QUERY, KEY, VALUE)]
        arrays[f'{prefix}{HEAD}attention.in_proj_{kind}'] = np.concatenate(parts)
    return arrays


def read(config: Config, tensors: Tensors) -> dict[str, Any]:
    """Without its attention pooling, the tower gives the mean of the patches."""
    return {'pool': 'map' if config['vision_use_head'] else 'gap'}


def write(config: Config, model: ViT, arrays: Arrays) -> Config:
    del config['qkv_bias']
    return config | {'vision_use_head': True}


def write_classifier(config: Config, model: ViT, arrays: Arrays) -> Config:
    del config['qkv_bias']
    architectures = config.pop('architectures')
    vision = config | {'model_type': 'siglip_vision_model', 'vision_use_head': False}
    if not model.num_classes:
        return vision | {'architectures': architectures}
    return {'architectures': architectures, 'model_type': 'siglip', 'vision_config': vision}


SIGLIP = Family(
    types=('siglip_vision_model', 'siglip'),
    architectures=('SiglipVisionModel', ''),
    names=LAYERS | POOLING,
    base='vision_model.',
    axes={'pos_embedding': 2},
    fixed={'class_token': False, 'qkv_bias': True, 'pool': 'map'},
    defaults={
        **SIZES,
        'patch_size': 16,
        'hidden_act': 'gelu_pytorch_tanh',
        'layer_norm_eps': 1e-6,
        'vision_use_head': True,
    },
    read=read,
    write=write,
    unpack=unpack,
    pack=pack,
    misfit=lambda model: 'no classifier' if model.num_classes else '',
    aside=TEXT,
    square=True,
)
# Files have the unused pooling too, unless they say that they have not.
SIGLIP_CLASSIFIER = dataclasses.replace(
    SIGLIP,
    architectures=('SiglipVisionModel', 'SiglipForImageClassification'),
    names=LAYERS | {CLASSIFIER: 'classifier'},
    fixed={'class_token': False, 'qkv_bias': True, 'pool': 'gap'},
    read=lambda config, tensors: {},
    write=write_classifier,
    unpack=lambda tensors, prefix, config: tensors,
    pack=lambda arrays, prefix, model: arrays,
    expressible={'gelu': ('tanh',)},  # others are written as I-JEPA, which computes the same
    misfit=lambda model: '',
    aside=(*TEXT, 'vision_model.head.'),
    needs='classifier.weight',
)
