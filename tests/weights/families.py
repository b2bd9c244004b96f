"""Small models of transformers' families, with random parameters, and what they compute."""

import numpy as np
from conftest import peer, random_images

SIZES = dict(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=12, patch_size=4
)
PLAIN = SIZES | dict(intermediate_size=48, layer_norm_eps=1e-6)
TEXT = dict(
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    vocab_size=9,
    pad_token_id=1,
    bos_token_id=0,
    eos_token_id=1,
)
LABELS = dict(id2label={0: 'ape', 1: 'bee', 2: 'cow'}, label2id={'ape': 0, 'bee': 1, 'cow': 2})
# By name: the class, its config's class and arguments.
FAMILIES = {
    'vit': ('ViTForImageClassification', 'ViTConfig', PLAIN | LABELS),
    'dinov2': ('Dinov2ForImageClassification', 'Dinov2Config', SIZES | LABELS | dict(mlp_ratio=2)),
    'dinov2-giant': ('Dinov2Model', 'Dinov2Config', SIZES | dict(use_swiglu_ffn=True)),
    'dinov2-registers': (
        'Dinov2WithRegistersForImageClassification',
        'Dinov2WithRegistersConfig',
        SIZES | LABELS | dict(patch_size=2, num_register_tokens=3),
    ),
    'dinov2-registers-giant': (
        'Dinov2WithRegistersModel',
        'Dinov2WithRegistersConfig',
        SIZES | dict(use_swiglu_ffn=True, qkv_bias=False),
    ),
    'siglip': ('SiglipVisionModel', 'SiglipVisionConfig', PLAIN),
    'siglip-classifier': (
        'SiglipForImageClassification',
        'SiglipConfig',
        dict(vision_config=PLAIN | dict(vision_use_head=False), text_config=TEXT) | LABELS,
    ),
    'clip': ('CLIPVisionModel', 'CLIPVisionConfig', PLAIN),
    'clip-projection': (
        'CLIPVisionModelWithProjection',
        'CLIPVisionConfig',
        PLAIN | dict(projection_dim=24, hidden_act='gelu'),
    ),
    'dinov3': ('DINOv3ViTModel', 'DINOv3ViTConfig', PLAIN | dict(num_register_tokens=4)),
    'dinov3-gated': (
        'DINOv3ViTModel',
        'DINOv3ViTConfig',
        PLAIN | dict(use_gated_mlp=True, hidden_act='silu', rope_theta=50.0, key_bias=True),
    ),
    'deit': ('DeiTForImageClassification', 'DeiTConfig', PLAIN | LABELS),
    'deit-model': ('DeiTModel', 'DeiTConfig', PLAIN),
    'deit-distilled': ('DeiTForImageClassificationWithTeacher', 'DeiTConfig', PLAIN | LABELS),
    'mae': ('ViTMAEModel', 'ViTMAEConfig', PLAIN | dict(mask_ratio=0.0)),
    'ijepa': ('IJepaForImageClassification', 'IJepaConfig', PLAIN | LABELS),
    'ijepa-model': ('IJepaModel', 'IJepaConfig', PLAIN | dict(qkv_bias=False)),
}
# Full models: both towers, or a decoder.
FULL = {
    'siglip': ('SiglipModel', 'SiglipConfig', dict(vision_config=PLAIN, text_config=TEXT)),
    'siglip-classifier': (
        'SiglipForImageClassification',
        'SiglipConfig',
        dict(vision_config=PLAIN, text_config=TEXT) | LABELS,
    ),
    'clip': (
        'CLIPModel',
        'CLIPConfig',
        dict(vision_config=PLAIN, text_config=TEXT, projection_dim=24),
    ),
    'mae': (
        'ViTMAEForPreTraining',
        'ViTMAEConfig',
        PLAIN
        | dict(
            mask_ratio=0.0,
            decoder_hidden_size=16,
            decoder_num_attention_heads=2,
            decoder_num_hidden_layers=1,
            decoder_intermediate_size=16,
        ),
    ),
}


def create(name, configs=FAMILIES, **options):
    """A model of transformers; its norms' scales and LayerScales are around 1, the rest around 0.

    The mask token, which only training uses, is zero.
    """
    peer('transformers')
    import torch
    import transformers

    architecture, config, arguments = configs[name]
    config = getattr(transformers, config)(**arguments | options)
    model = getattr(transformers, architecture)(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            noise = 0.3 * torch.randn(parameter.shape, generator=generator)
            ones = parameter.ndim == 1 and ('norm' in key or 'lambda1' in key) and 'bias' not in key
            parameter.copy_(torch.zeros_like(noise) if 'mask_token' in key else noise + ones)
    return model


def compute(model, images):
    """All tokens, and the logits or features (None if there are none), of images [b, h, w, c]."""
    import torch

    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    size = vision_config(model).image_size
    options = {}
    if model.config.model_type not in ('dinov2', 'dinov2_with_registers', 'dinov3_vit'):
        options['interpolate_pos_encoding'] = images.shape[1:3] != (size, size)
    if model.config.model_type == 'vit_mae':  # a fixed order of the patches
        n = (images.shape[1] // 4) * (images.shape[2] // 4)
        options['noise'] = torch.arange(n).expand(len(images), n) / n
    tower = backbone(model)
    captured = []
    hook = tower.register_forward_hook(lambda module, args, out: captured.append(out))
    with torch.no_grad():
        out = model(pixels, **options)
    hook.remove()
    pooled = next(
        (
            out[key]
            for key in ('logits', 'image_embeds', 'pooler_output')
            if out.get(key) is not None
        ),
        None,
    )
    return captured[0].last_hidden_state.numpy(), None if pooled is None else pooled.numpy()


def backbone(model):
    names = ('vision_model', 'vit', 'deit', 'ijepa', 'dinov2', 'dinov2_with_registers')
    return next((getattr(model, name) for name in names if hasattr(model, name)), model)


def vision_config(model):
    return getattr(model.config, 'vision_config', model.config)


def images_for(model, size=(12, 12)):
    return random_images(vision_config(model).num_channels, size)
