"""ViT, and those that name their arrays as it does: DeiT, MAE's encoder and I-JEPA.

DeiT without a classifier for its distillation token has the token all the same: one register with
a position of its own. MAE's encoder is a ViT, and is written as one.

Source: https://github.com/huggingface/transformers, `models/{vit,deit,vit_mae,ijepa}`.
"""

import dataclasses
from typing import Any

from vit_jax.errors import InputError
from vit_jax.model.vit import ViT
from vit_jax.weights.families.family import CLASSIFIER, Config, Family
from vit_jax.weights.files import Arrays, Tensors

LAYER = 'encoder.layer.{}.'
BACKBONE: dict[str, str | tuple[str, ...]] = {
    'to_patch_embedding': 'embeddings.patch_embeddings.projection',
    'pos_embedding': 'embeddings.position_embeddings',
    'transformer/attn/norm': LAYER + 'layernorm_before',
    'transformer/attn/fn/to_qkv': tuple(
        f'{LAYER}attention.attention.{name}' for name in ('query', 'key', 'value')
    ),
    'transformer/attn/fn/to_out': LAYER + 'attention.output.dense',
    'transformer/ff/norm': LAYER + 'layernorm_after',
    'transformer/ff/fn/net_0': LAYER + 'intermediate.dense',
    'transformer/ff/fn/net_1': LAYER + 'output.dense',
    'mlp_head/layers_0': 'layernorm',
    CLASSIFIER: 'classifier',
}
CLS = {'cls_token': 'embeddings.cls_token', 'mlp_head/pre_logits': 'pooler.dense'}
# The names of version 5 in memory, which saves those above.
IN_MEMORY = (
    ('attention.q_proj', 'attention.attention.query'),
    ('attention.k_proj', 'attention.attention.key'),
    ('attention.v_proj', 'attention.attention.value'),
    ('attention.o_proj', 'attention.output.dense'),
)
RENAMED = (
    *IN_MEMORY,
    ('mlp.fc1', 'intermediate.dense'),
    ('mlp.fc2', 'output.dense'),
    (r'^((?:vit|deit|ijepa)\.)?layers\.', r'\1encoder.layer.'),
)


def read(config: Config, tensors: Tensors) -> dict[str, Any]:
    """Raises InputError if the pooler is not a tanh layer."""
    if (act := config.get('pooler_act', 'tanh')) != 'tanh':
        raise InputError(f"expected pooler_act 'tanh', got {act!r}")
    return {}


def write(config: Config, model: ViT, arrays: Arrays) -> Config:
    return config | {'pooler_output_size': model.representation_size or model.dim}


VIT = Family(
    types=('vit',),
    architectures=('ViTModel', 'ViTForImageClassification'),
    names=BACKBONE | CLS,
    base='vit.',
    renamed=RENAMED,
    read=read,
    write=write,
)
MAE = dataclasses.replace(
    VIT,
    types=('vit_mae',),
    architectures=('ViTMAEModel', ''),
    aside=('decoder.',),
    misfit=lambda model: 'a ViT of another family: MAE has no classifier',
)
DEIT = dataclasses.replace(
    VIT,
    types=('deit',),
    architectures=('DeiTModel', 'DeiTForImageClassification'),
    names=BACKBONE | CLS | {'register_tokens': 'embeddings.distillation_token'},
    base='deit.',
    fixed={'num_registers': 1},
)
DISTILLED_DEIT = dataclasses.replace(
    DEIT,
    architectures=('', 'DeiTForImageClassificationWithTeacher'),
    names=BACKBONE
    | {
        'cls_token': 'embeddings.cls_token',
        'dist_token': 'embeddings.distillation_token',
        CLASSIFIER: 'cls_classifier',
        'mlp_head/dist': 'distillation_classifier',
    },
    fixed={'distilled': True},
    misfit=lambda model: '' if model.num_classes else 'a classifier for the distillation token',
    needs='cls_classifier.weight',
)
IJEPA = dataclasses.replace(
    VIT,
    types=('ijepa',),
    architectures=('IJepaModel', 'IJepaForImageClassification'),
    names=BACKBONE,
    base='ijepa.',
    fixed={'class_token': False, 'pool': 'gap'},
)
