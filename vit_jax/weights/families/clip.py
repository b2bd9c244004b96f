"""CLIP's vision tower, alone or in the full model.

The projection to the space of images and texts is our classifier, with a bias of zeros.

Source: https://github.com/huggingface/transformers, `models/clip`.
"""

from vit_jax.errors import InputError
from vit_jax.model.vit import ViT
from vit_jax.weights.families.family import CLASSIFIER, Config, Family
from vit_jax.weights.families.siglip import LAYERS, SIZES, TEXT
from vit_jax.weights.families.zeros import add_zeros, drop_zeros
from vit_jax.weights.files import Arrays, Tensors

PROJECTION = 'visual_projection'


def unpack(tensors: Tensors, prefix: str, config: Config) -> Tensors:
    if 'classifier.weight' in tensors:
        raise InputError('CLIPForImageClassification is not supported: its mean has no norm')
    return add_zeros(tensors, [f'{PROJECTION}.weight'])


def pack(arrays: Arrays, prefix: str, model: ViT) -> Arrays:
    return drop_zeros(arrays, [f'{PROJECTION}.bias'])


def write(config: Config, model: ViT, arrays: Arrays) -> Config:
    del config['qkv_bias']
    return config | {'projection_dim': model.num_classes or 512}


CLIP = Family(
    types=('clip_vision_model', 'clip'),
    architectures=('CLIPVisionModel', 'CLIPVisionModelWithProjection'),
    names=LAYERS
    | {
        'cls_token': 'embeddings.class_embedding',
        'norm_tokens': 'pre_layrnorm',
        CLASSIFIER: PROJECTION,
    },
    base='vision_model.',
    axes={'pos_embedding': 2, 'cls_token': 1},
    fixed={'patch_bias': False, 'embed_norm': True, 'qkv_bias': True},
    defaults={
        **SIZES,
        'patch_size': 32,
        'hidden_act': 'quick_gelu',
        'layer_norm_eps': 1e-5,
    },
    write=write,
    unpack=unpack,
    pack=pack,
    aside=TEXT,
    square=True,
    has_names=False,
)
