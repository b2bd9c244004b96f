"""DINOv3: rotary positions, registers, LayerScale; the largest model's blocks are gated.

Keys have no bias, and other biases may be absent too; ours are zeros then.

Source: https://github.com/huggingface/transformers, `models/dinov3_vit`.
"""

import dataclasses
from typing import Any

import numpy as np

from vit_jax.model.vit import ViT
from vit_jax.weights.families.family import Config, Family
from vit_jax.weights.families.zeros import add_zeros, drop_zeros
from vit_jax.weights.files import Arrays, Tensors

LAYER = 'layer.{}.'
REGISTERS = 'embeddings.register_tokens'
GATE, UP = 'mlp.gate_proj', 'mlp.up_proj'
# By option of the config: the modules that have biases.
BIASES = {
    'query_bias': ('attention.q_proj',),
    'key_bias': ('attention.k_proj',),
    'value_bias': ('attention.v_proj',),
    'proj_bias': ('attention.o_proj',),
    'mlp_bias': (GATE, UP, 'mlp.down_proj'),
}


def unpack(tensors: Tensors, prefix: str, config: Config) -> Tensors:
    for option, modules in BIASES.items():
        if not config[option]:
            endings = tuple(f'{module}.weight' for module in modules)
            tensors = add_zeros(tensors, [name for name in tensors if name.endswith(endings)])
    registers = tensors.get(REGISTERS)
    if registers and registers.shape[1:2] == (0,):
        tensors = {name: x for name, x in tensors.items() if name != REGISTERS}
    return tensors


def pack(arrays: Arrays, prefix: str, model: ViT) -> Arrays:
    biases = {name: x for name, x in arrays.items() if name.endswith('k_proj.bias')}
    if not any(bias.any() for bias in biases.values()):
        arrays = drop_zeros(arrays, biases)
    return {REGISTERS: np.zeros((1, 0, model.dim), np.float32)} | arrays


def read(config: Config, tensors: Tensors) -> dict[str, Any]:
    return {
        'qkv_bias': True,
        'rope_theta': config['rope_theta'],
        'layer_scale': config['layerscale_value'],
        'gated': bool(config['use_gated_mlp']),
        'num_registers': config['num_register_tokens'],
    }


def write(config: Config, model: ViT, arrays: Arrays) -> Config:
    del config['qkv_bias']
    return config | {
        'rope_theta': model.rope_theta,
        'layerscale_value': model.layer_scale,
        'use_gated_mlp': model.gated,
        'num_register_tokens': model.num_registers,
        'key_bias': any(name.endswith('k_proj.bias') for name in arrays),
        **{option: True for option in BIASES if option != 'key_bias'},
    }


def misfit(model: ViT) -> str:
    if model.num_classes:
        return 'no classifier (num_classes=0)'
    return 'layer_scale=, for LayerScale' if model.layer_scale is None else ''


NAMES: dict[str, str | tuple[str, ...]] = {
    'to_patch_embedding': 'embeddings.patch_embeddings',
    'cls_token': 'embeddings.cls_token',
    'register_tokens': REGISTERS,
    'transformer/attn/norm': LAYER + 'norm1',
    'transformer/attn/fn/to_qkv': tuple(f'{LAYER}attention.{x}_proj' for x in 'qkv'),
    'transformer/attn/fn/to_out': LAYER + 'attention.o_proj',
    'transformer/attn/gamma': LAYER + 'layer_scale1.lambda1',
    'transformer/ff/norm': LAYER + 'norm2',
    'transformer/ff/fn/net_0': LAYER + UP,
    'transformer/ff/fn/net_1': LAYER + 'mlp.down_proj',
    'transformer/ff/gamma': LAYER + 'layer_scale2.lambda1',
    'mlp_head/layers_0': 'norm',
}
DINOV3 = Family(
    types=('dinov3_vit',),
    architectures=('DINOv3ViTModel', ''),
    names=NAMES,
    base='',
    renamed=(('^model.layer.', 'layer.'),),
    fixed={'posemb': 'rope2d', 'gated': False},
    free=('layer_scale', 'num_registers', 'rope_theta'),
    defaults={
        'hidden_size': 384,
        'intermediate_size': 1536,
        'num_hidden_layers': 12,
        'num_attention_heads': 6,
        'hidden_act': 'gelu',
        'layer_norm_eps': 1e-5,
        'rope_theta': 100.0,
        'image_size': 224,
        'patch_size': 16,
        'num_channels': 3,
        'query_bias': True,
        'key_bias': False,
        'value_bias': True,
        'proj_bias': True,
        'mlp_bias': True,
        'layerscale_value': 1.0,
        'use_gated_mlp': False,
        'num_register_tokens': 0,
    },
    read=read,
    write=write,
    unpack=unpack,
    pack=pack,
    misfit=misfit,
    mask_axes=3,
)
GATED_DINOV3 = dataclasses.replace(
    DINOV3,
    names=NAMES | {'transformer/ff/fn/net_0': (LAYER + GATE, LAYER + UP)},
    fixed={'posemb': 'rope2d', 'gated': True},
    needs='layer.0.mlp.gate_proj.weight',
)
