"""timm's Vision Transformer in float64: random weights under its names, and logits.

Written from the peer's public source, independent of `vit_jax`:
huggingface/pytorch-image-models.
"""

import numpy as np
from references.parts import GELU, attend, layer_norm, patches, prepend


def random_timm(
    rng,
    *,
    dim=32,
    depth=2,
    heads=2,
    mlp_dim=48,
    patch=(4, 4),
    grid=(3, 3),
    channels=3,
    num_classes=5,
    class_token=True,
    registers=0,
    distilled=False,
    no_embed_class=False,
    qkv_bias=True,
    qk_norm=False,
    layer_scale=None,
    pool='token',
    fc_norm=False,
    head=True,
    pre_norm=False,
    gated=False,
):
    """A state dict of timm's `VisionTransformer`, or of its distilled DeiT, with random values.

    Names and shapes: timm/models/vision_transformer.py and deit.py, timm/layers/attention.py,
    attention_pool.py and layer_scale.py. `layer_scale` is None, 'ls' (timm's names) or 'gamma' (the
    names in DeiT-3's own files). `qkv_bias` and `qk_norm` do not apply to attention pooling.
    """
    # In deit.py each head reads its own token after the final norm, and there are no registers.
    assert not distilled or (class_token, registers, pool, fc_norm) == (True, 0, 'token', False)
    state = {}

    def draw(name, *shape, std, mean=0.0):
        state[name] = (mean + std * rng.standard_normal(shape)).astype(np.float32)

    def linear(name, inputs, outputs, bias=True):
        draw(f'{name}.weight', outputs, *inputs, std=np.prod(inputs) ** -0.5)
        if bias:
            draw(f'{name}.bias', outputs, std=0.2)

    def norm(name, size):
        draw(f'{name}.weight', size, std=0.2, mean=1.0)
        draw(f'{name}.bias', size, std=0.2)

    def mlp(name):
        linear(f'{name}.fc1', [dim], mlp_dim * (2 if gated else 1))
        linear(f'{name}.fc2', [mlp_dim], dim)

    tokens = {'cls_token': int(class_token), 'dist_token': int(distilled), 'reg_token': registers}
    for name, count in tokens.items():
        if count:
            draw(name, 1, count, dim, std=1.0)
    positions = np.prod(grid) + (0 if no_embed_class else sum(tokens.values()))
    draw('pos_embed', 1, positions, dim, std=0.5)
    linear('patch_embed.proj', [channels, *patch], dim, bias=not pre_norm)
    if pre_norm:
        norm('norm_pre', dim)
    for block in (f'blocks.{i}' for i in range(depth)):
        norm(f'{block}.norm1', dim)
        linear(f'{block}.attn.qkv', [dim], 3 * dim, bias=qkv_bias)
        if qk_norm:
            norm(f'{block}.attn.q_norm', dim // heads)
            norm(f'{block}.attn.k_norm', dim // heads)
        linear(f'{block}.attn.proj', [dim], dim)
        norm(f'{block}.norm2', dim)
        mlp(f'{block}.mlp')
        if layer_scale:
            names = {'ls': ('ls1.gamma', 'ls2.gamma'), 'gamma': ('gamma_1', 'gamma_2')}
            for name in names[layer_scale]:
                draw(f'{block}.{name}', dim, std=0.1, mean=0.5)
    norm('fc_norm' if fc_norm else 'norm', dim)
    if pool == 'map':
        draw('attn_pool.latent', 1, 1, dim, std=1.0)
        linear('attn_pool.q', [dim], dim)
        linear('attn_pool.kv', [dim], 2 * dim)
        linear('attn_pool.proj', [dim], dim)
        norm('attn_pool.norm', dim)
        mlp('attn_pool.mlp')
    if head:
        for name in ['head', 'head_dist'] if distilled else ['head']:
            linear(name, [dim], num_classes)
    return state


def timm_logits(state, images, *, heads, pool, patch, gelu='erf', eps=1e-6):
    """The logits of timm's `VisionTransformer` in evaluation; without a head, its input.

    Sources: timm/models/vision_transformer.py and deit.py, timm/layers/attention.py,
    attention_pool.py and pool1d.py. By default LayerNorm's eps is 1e-6 and GELU is exact ('erf').
    Average and attention pooling exclude the prefix tokens.
    """
    state = {name: np.asarray(value, np.float64) for name, value in state.items()}

    def linear(name, x):
        return x @ state[f'{name}.weight'].T + state.get(f'{name}.bias', 0.0)

    def norm(name, x):
        return layer_norm(x, state[f'{name}.weight'], state[f'{name}.bias'], eps)

    def optional(layer, name, x):
        return layer(name, x) if f'{name}.weight' in state else x

    def split(x, parts):
        return np.moveaxis(x.reshape(*x.shape[:2], parts, heads, -1), 2, 0)

    def attention(name, x):
        q, k, v = split(linear(f'{name}.qkv', x), 3)
        q, k = optional(norm, f'{name}.q_norm', q), optional(norm, f'{name}.k_norm', k)
        return linear(f'{name}.proj', attend(q, k, v).reshape(x.shape))

    def mlp(name, x):
        x = linear(f'{name}.fc1', x)
        if x.shape[-1] == 2 * state[f'{name}.fc2.weight'].shape[1]:  # SwiGLUPacked
            gate, x = np.split(x, 2, axis=-1)
            return linear(f'{name}.fc2', gate / (1 + np.exp(-gate)) * x)
        return linear(f'{name}.fc2', GELU[gelu](x))

    def scale(block, i):
        return state.get(f'{block}.ls{i}.gamma', state.get(f'{block}.gamma_{i}', 1.0))

    def attention_pool(x):
        latent = np.repeat(state['attn_pool.latent'], len(x), axis=0)
        [q], [k, v] = split(linear('attn_pool.q', latent), 1), split(linear('attn_pool.kv', x), 2)
        x = linear('attn_pool.proj', attend(q, k, v).reshape(latent.shape))
        return (x + mlp('attn_pool.mlp', norm('attn_pool.norm', x)))[:, 0]

    grid = images.shape[1] // patch[0], images.shape[2] // patch[1]
    kernel, positions = state['patch_embed.proj.weight'], state['pos_embed']
    x = np.einsum('bnijc,dcij->bnd', patches(images, grid, patch), kernel)
    x = x + state.get('patch_embed.proj.bias', 0.0)
    count = x.shape[1]
    tokens = [state[name] for name in ('cls_token', 'dist_token', 'reg_token') if name in state]
    if positions.shape[1] == count:  # no_embed_class
        x = prepend(tokens, x + positions)
    else:
        x = prepend(tokens, x) + positions
    x = optional(norm, 'norm_pre', x)
    depth = sum(name.endswith('.norm1.weight') for name in state)
    for block in (f'blocks.{i}' for i in range(depth)):
        x = x + scale(block, 1) * attention(f'{block}.attn', norm(f'{block}.norm1', x))
        x = x + scale(block, 2) * mlp(f'{block}.mlp', norm(f'{block}.norm2', x))
    x = optional(norm, 'norm', x)
    if 'dist_token' in state:
        return (optional(linear, 'head', x[:, 0]) + optional(linear, 'head_dist', x[:, 1])) / 2
    if pool == 'map':
        x = attention_pool(x[:, -count:])
    else:
        x = {'token': x[:, 0], 'avg': x[:, -count:].mean(axis=1)}[pool]
    return optional(linear, 'head', optional(norm, 'fc_norm', x))
