"""DINOv2, without and with registers.

The classifier reads the cls token and the mean of the patches. Registers have no position
embeddings: ours are zeros, and others are added to the registers when they are written. The largest
model's feed-forward blocks are gated.

Source: https://github.com/huggingface/transformers, `models/{dinov2,dinov2_with_registers}`.
"""

import dataclasses
from typing import Any

import numpy as np

from vit_jax.errors import InputError
from vit_jax.model.vit import ViT
from vit_jax.weights.families.family import CLASSIFIER, Config, Family, rename
from vit_jax.weights.families.vit import IN_MEMORY, LAYER
from vit_jax.weights.files import Arrays, Stored, Tensors

REGISTERS = 'embeddings.register_tokens'
POSITIONS = 'embeddings.position_embeddings'
NAMES: dict[str, str | tuple[str, ...]] = {
    'to_patch_embedding': 'embeddings.patch_embeddings.projection',
    'pos_embedding': POSITIONS,
    'cls_token': 'embeddings.cls_token',
    'transformer/attn/norm': LAYER + 'norm1',
    'transformer/attn/fn/to_qkv': tuple(
        f'{LAYER}attention.attention.{name}' for name in ('query', 'key', 'value')
    ),
    'transformer/attn/fn/to_out': LAYER + 'attention.output.dense',
    'transformer/attn/gamma': LAYER + 'layer_scale1.lambda1',
    'transformer/ff/norm': LAYER + 'norm2',
    'transformer/ff/fn/net_0': LAYER + 'mlp.fc1',
    'transformer/ff/fn/net_1': LAYER + 'mlp.fc2',
    'transformer/ff/gamma': LAYER + 'layer_scale2.lambda1',
    'mlp_head/layers_0': 'layernorm',
    CLASSIFIER: 'classifier',
}
# The gate comes first, as in our net_0.
GATED = (('mlp.weights_in.', 'mlp.fc1.'), ('mlp.weights_out.', 'mlp.fc2.'))


def hidden_features(dim: int, ratio: int | float, gated: bool) -> int:
    """Of a feed-forward block; a gated one has two thirds, rounded up to a multiple of 8."""
    hidden = int(dim * ratio)
    return (int(hidden * 2 / 3) + 7) // 8 * 8 if gated else hidden


def ratio_of(model: ViT) -> int | None:
    """The config's ratio, a whole number, that gives the model's hidden features; None if none."""
    ratios = range(1, 2 * model.mlp_dim // model.dim + 3)
    hidden = {hidden_features(model.dim, ratio, model.gated): ratio for ratio in ratios}
    return hidden.get(model.mlp_dim)


def read(config: Config, tensors: Tensors) -> dict[str, Any]:
    dim, ratio, gated = config['hidden_size'], config['mlp_ratio'], config['use_swiglu_ffn']
    if not all(isinstance(x, int | float) for x in (dim, ratio)) or not 0 < ratio < 1000:
        raise InputError(f'config.json has {dim!r} and {ratio!r} for hidden_size and mlp_ratio')
    arguments = {
        'pool': 'cls_gap' if 'classifier.weight' in tensors else 'cls',
        'layer_scale': config['layerscale_value'],
        'mlp_dim': hidden_features(dim, ratio, bool(gated)),
    }
    return arguments | ({'gated': True, 'gelu': 'silu'} if gated else {})


def write(config: Config, model: ViT, arrays: Arrays) -> Config:
    del config['intermediate_size']
    return config | {
        'mlp_ratio': ratio_of(model),
        'use_swiglu_ffn': model.gated,
        'layerscale_value': model.layer_scale,
        'hidden_act': 'gelu' if model.gated else config['hidden_act'],
    }


def misfit(model: ViT) -> str:
    if model.layer_scale is None:
        return 'layer_scale=, for LayerScale'
    if model.gated and model.gelu != 'silu':
        return f"gelu='silu' with gated=True, got {model.gelu!r}"
    if (model.pool == 'cls_gap') != (model.num_classes > 0):
        return f"pool='cls_gap' with a classifier and 'cls' without, got {model.pool!r}"
    if ratio_of(model) is None:
        return f'mlp_dim a multiple of dim (if gated, two thirds of one), got {model.mlp_dim}'
    return ''


def unpack(tensors: Tensors, prefix: str, config: Config) -> Tensors:
    if config.get('use_swiglu_ffn'):
        return rename(tensors, GATED)
    return tensors


def pack(arrays: Arrays, prefix: str, model: ViT) -> Arrays:
    if model.gated:
        for theirs, ours in GATED:
            arrays = {name.replace(ours, theirs): x for name, x in arrays.items()}
    return arrays


def unpack_registers(tensors: Tensors, prefix: str, config: Config) -> Tensors:
    """Gives the registers positions of zeros, between those of cls and the patches."""
    tensors = unpack(tensors, prefix, config)
    registers = tensors.get(prefix + REGISTERS)
    positions = tensors.get(prefix + POSITIONS)
    if not (registers and positions and len(registers.shape) == len(positions.shape) == 3):
        return tensors
    num_registers, (_, n, dim) = registers.shape[1], positions.shape
    if not num_registers:
        return {name: x for name, x in tensors.items() if name != prefix + REGISTERS}

    def read() -> np.ndarray:
        return np.insert(positions.read(), [1] * num_registers, 0, axis=1)

    shape = (positions.shape[0], n + num_registers, dim)
    return tensors | {prefix + POSITIONS: Stored(shape, positions.dtype, read)}


def pack_registers(arrays: Arrays, prefix: str, model: ViT) -> Arrays:
    """Adds the registers' positions to the registers."""
    positions, last = arrays[prefix + POSITIONS], 1 + model.num_registers
    cls, others, patches = np.split(positions, [1, last], axis=1)
    registers = arrays.get(prefix + REGISTERS, others)
    folded = {
        prefix + POSITIONS: np.concatenate([cls, patches], axis=1),
        prefix + REGISTERS: registers + others if others.any() else registers,
    }
    return pack(arrays | folded, prefix, model)


DINOV2 = Family(
    types=('dinov2',),
    architectures=('Dinov2Model', 'Dinov2ForImageClassification'),
    names=NAMES,
    base='dinov2.',
    renamed=IN_MEMORY,
    defaults={
        'hidden_size': 768,
        'num_hidden_layers': 12,
        'num_attention_heads': 12,
        'mlp_ratio': 4,
        'hidden_act': 'gelu',
        'layer_norm_eps': 1e-6,
        'image_size': 224,
        'patch_size': 14,
        'num_channels': 3,
        'layerscale_value': 1.0,
        'use_swiglu_ffn': False,
    },
    expressible={'pool': ('cls_gap', 'cls'), 'gated': (False, True)},
    free=('layer_scale',),
    read=read,
    write=write,
    unpack=unpack,
    pack=pack,
    misfit=misfit,
    mask_axes=2,
    square=True,
)
DINOV2_WITH_REGISTERS = dataclasses.replace(
    DINOV2,
    types=('dinov2_with_registers',),
    architectures=('Dinov2WithRegistersModel', 'Dinov2WithRegistersForImageClassification'),
    names=NAMES | {'register_tokens': REGISTERS},
    base='dinov2_with_registers.',
    free=('layer_scale', 'num_registers'),
    defaults={**DINOV2.defaults, 'patch_size': 16, 'num_register_tokens': 4},
    read=lambda config, tensors: (
        read(config, tensors) | {'num_registers': config['num_register_tokens']}
    ),
    write=lambda config, model, arrays: (
        write(config, model, arrays) | {'num_register_tokens': model.num_registers}
    ),
    unpack=unpack_registers,
    pack=pack_registers,
    RESIZE='bicubic',
)
