"""What `config.json` calls the arguments of a ViT, and what most of transformers' ViTs compute."""

from typing import Any

from vit_jax.weights import accounting

# What a family can express unless its own table says otherwise.
PLAIN: dict[str, tuple[Any, ...]] = {
    **accounting.PLAIN,
    'pool': ('cls',),
    'posemb': ('learned',),
    'class_token': (True,),
    'distilled': (False,),
    'num_registers': (0,),
    'gelu': ('erf', 'tanh', 'quick', 'silu'),
    'qk_norm': (False,),
    'layer_scale': (None,),
    'fc_norm': (False,),
    'representation_size': (0,),
}
ACTIVATIONS = {
    'gelu': 'erf',
    'gelu_python': 'erf',
    'gelu_new': 'tanh',
    'gelu_pytorch_tanh': 'tanh',
    'quick_gelu': 'quick',
    'silu': 'silu',
    'swish': 'silu',
}
SIZES = {
    'heads': 'num_attention_heads',
    'norm_eps': 'layer_norm_eps',
    'image_size': 'image_size',
    'depth': 'num_hidden_layers',
    'dim': 'hidden_size',
    'mlp_dim': 'intermediate_size',
    'patch_size': 'patch_size',
    'channels': 'num_channels',
}

KINDS: dict[str, Any] = {
    'norm_eps': int | float,
    'image_size': int | tuple,
    'patch_size': int | tuple,
}
