"""timm's and Google's Vision Transformers in float64: random weights under their names, logits.

Written from the peers' public sources to be compared with, so it shares nothing with `vit_jax`:
huggingface/pytorch-image-models (timm), google-research/vision_transformer and
google-research/big_vision.
"""

import numpy as np
from scipy.special import erf, softmax

CLASSIC = 'LayerNorm_0', 'MultiHeadDotProductAttention_1', 'LayerNorm_2', 'MlpBlock_3'
LINEN = 'LayerNorm_0', 'MultiHeadDotProductAttention_0', 'LayerNorm_1', 'MlpBlock_0'
MAP_HEAD = 'MultiHeadDotProductAttention_0', 'LayerNorm_0', 'MlpBlock_0'
GELU = {
    'erf': lambda x: x / 2 * (1 + erf(x / np.sqrt(2))),
    'tanh': lambda x: x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
}


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
):
    """A state dict of timm's `VisionTransformer`, or of its distilled DeiT, with random values.

    Names and shapes: timm/models/vision_transformer.py and deit.py, timm/layers/attention.py,
    attention_pool.py and layer_scale.py. `layer_scale` is None, 'ls' as timm has it, or 'gamma' as
    DeiT-3's own files do. `qkv_bias` and `qk_norm` do not reach the attention pooling.
    """
    # In deit.py both heads read their own token off the final norm; registers have no place there.
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
        linear(f'{name}.fc1', [dim], mlp_dim)
        linear(f'{name}.fc2', [mlp_dim], dim)

    tokens = {'cls_token': int(class_token), 'dist_token': int(distilled), 'reg_token': registers}
    for name, count in tokens.items():
        if count:
            draw(name, 1, count, dim, std=1.0)
    positions = np.prod(grid) + (0 if no_embed_class else sum(tokens.values()))
    draw('pos_embed', 1, positions, dim, std=0.5)
    linear('patch_embed.proj', [channels, *patch], dim)
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
    """What timm's `VisionTransformer` answers in evaluation; without a head, what is pooled.

    Sources: timm/models/vision_transformer.py and deit.py, timm/layers/attention.py,
    attention_pool.py and pool1d.py. LayerNorm has eps 1e-6 and GELU is exact ('erf') where a model
    does not say otherwise. Average and attention pooling leave the prefix tokens out.
    """
    state = {name: np.asarray(value, np.float64) for name, value in state.items()}

    def linear(name, x):
        return x @ state[f'{name}.weight'].T + state.get(f'{name}.bias', 0.0)

    def norm(name, x):
        return _layer_norm(x, state[f'{name}.weight'], state[f'{name}.bias'], eps)

    def optional(layer, name, x):
        return layer(name, x) if f'{name}.weight' in state else x

    def split(x, parts):
        return np.moveaxis(x.reshape(*x.shape[:2], parts, heads, -1), 2, 0)

    def attention(name, x):
        q, k, v = split(linear(f'{name}.qkv', x), 3)
        q, k = optional(norm, f'{name}.q_norm', q), optional(norm, f'{name}.k_norm', k)
        return linear(f'{name}.proj', _attend(q, k, v).reshape(x.shape))

    def mlp(name, x):
        return linear(f'{name}.fc2', GELU[gelu](linear(f'{name}.fc1', x)))

    def scale(block, i):
        return state.get(f'{block}.ls{i}.gamma', state.get(f'{block}.gamma_{i}', 1.0))

    def attention_pool(x):
        latent = np.repeat(state['attn_pool.latent'], len(x), axis=0)
        [q], [k, v] = split(linear('attn_pool.q', latent), 1), split(linear('attn_pool.kv', x), 2)
        x = linear('attn_pool.proj', _attend(q, k, v).reshape(latent.shape))
        return (x + mlp('attn_pool.mlp', norm('attn_pool.norm', x)))[:, 0]

    grid = images.shape[1] // patch[0], images.shape[2] // patch[1]
    kernel, positions = state['patch_embed.proj.weight'], state['pos_embed']
    x = np.einsum('bnijc,dcij->bnd', _patches(images, grid, patch), kernel)
    x = x + state['patch_embed.proj.bias']
    count = x.shape[1]
    tokens = [state[name] for name in ('cls_token', 'dist_token', 'reg_token') if name in state]
    if positions.shape[1] == count:  # no_embed_class
        x = _prepend(tokens, x + positions)
    else:
        x = _prepend(tokens, x) + positions
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


def random_google(
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
    flavour,
    pool='cls',
    pre_logits=0,
    posemb='learn',
    head=True,
):
    """The arrays of a Google `.npz` by name, with random values.

    Names and shapes: vit_jax/models_vit.py of google-research/vision_transformer ('linen', and
    'classic' from before Flax counted each kind of module apart: its checkpoint.py renumbers them)
    and big_vision/models/vit.py ('big_vision', and 'big_vision_scan' with the blocks stacked).
    `pool` is 'cls', in big_vision also 'gap' or 'map'; `posemb` is 'learn', in big_vision also
    'sincos2d', which stores nothing.
    """
    big_vision = flavour in ('big_vision', 'big_vision_scan')
    assert big_vision or (flavour in ('classic', 'linen') and (pool, posemb) == ('cls', 'learn'))
    state = {}

    def draw(name, *shape, std, mean=0.0):
        state[name] = (mean + std * rng.standard_normal(shape)).astype(np.float32)

    def dense(name, inputs, outputs, stack=()):
        draw(f'{name}/kernel', *stack, *inputs, *outputs, std=np.prod(inputs) ** -0.5)
        draw(f'{name}/bias', *stack, *outputs, std=0.2)

    def norm(name, stack=()):
        draw(f'{name}/scale', *stack, dim, std=0.2, mean=1.0)
        draw(f'{name}/bias', *stack, dim, std=0.2)

    def layers(name, attention, norm_2, mlp, stack=()):
        for part in ('query', 'key', 'value'):
            dense(f'{name}/{attention}/{part}', [dim], [heads, dim // heads], stack)
        dense(f'{name}/{attention}/out', [heads, dim // heads], [dim], stack)
        norm(f'{name}/{norm_2}', stack)
        dense(f'{name}/{mlp}/Dense_0', [dim], [mlp_dim], stack)
        dense(f'{name}/{mlp}/Dense_1', [mlp_dim], [dim], stack)

    dense('embedding', [*patch, channels], [dim])
    if pool == 'cls':
        draw('cls', 1, 1, dim, std=1.0)
    if not big_vision:
        draw('Transformer/posembed_input/pos_embedding', 1, 1 + np.prod(grid), dim, std=0.5)
    elif posemb == 'learn':
        draw('pos_embedding', 1, np.prod(grid), dim, std=0.5)
    norm_1, *others = CLASSIC if flavour == 'classic' else LINEN
    blocks, stack = [f'encoderblock_{i}' for i in range(depth)], ()
    if flavour == 'big_vision_scan':
        blocks, stack = ['encoderblock'], (depth,)
    for block in (f'Transformer/{name}' for name in blocks):
        norm(f'{block}/{norm_1}', stack)
        layers(block, *others, stack)
    norm('Transformer/encoder_norm')
    if pool == 'map':
        draw('MAPHead_0/probe', 1, 1, dim, std=1.0)
        layers('MAPHead_0', *MAP_HEAD)
    if pre_logits:
        dense('pre_logits', [dim], [pre_logits])
    if head:
        dense('head', [pre_logits or dim], [num_classes])
    return state


def google_logits(state, images, *, pool, patch, grid):
    """What Google's models answer in evaluation; without a head, what it would be given.

    Sources: vit_jax/models_vit.py of google-research/vision_transformer, big_vision/models/vit.py.
    Both leave Flax its defaults, in the MAP head too: LayerNorm's eps is 1e-6, GELU is by tanh.
    """
    state = {name: np.asarray(value, np.float64) for name, value in state.items()}
    scanned = 'Transformer/encoderblock/'
    for name in [name for name in state if name.startswith(scanned)]:
        for i, value in enumerate(state.pop(name)):
            state[f'Transformer/encoderblock_{i}/{name.removeprefix(scanned)}'] = value

    def dense(name, x, axes=1):
        return np.tensordot(x, state[f'{name}/kernel'], axes) + state[f'{name}/bias']

    def norm(name, x):
        return _layer_norm(x, state[f'{name}/scale'], state[f'{name}/bias'], 1e-6)

    def attention(name, x, memory):
        k, v = dense(f'{name}/key', memory), dense(f'{name}/value', memory)
        return dense(f'{name}/out', _attend(dense(f'{name}/query', x), k, v), axes=2)

    def add_mlp(norm_name, name, x):
        y = dense(f'{name}/Dense_0', norm(norm_name, x))
        return x + dense(f'{name}/Dense_1', GELU['tanh'](y))

    x = dense('embedding', _patches(images, grid, patch), axes=3)
    if 'Transformer/posembed_input/pos_embedding' in state:
        x = _prepend([state['cls']], x) + state['Transformer/posembed_input/pos_embedding']
    else:
        x = x + state.get('pos_embedding', _sincos2d(*grid, x.shape[-1]))
        x = _prepend([state['cls']] if pool == 'cls' else [], x)
    classic = f'Transformer/encoderblock_0/{CLASSIC[1]}/out/bias' in state
    norm_1, attend, norm_2, mlp = CLASSIC if classic else LINEN
    depth = sum(name.startswith('Transformer/') and name.endswith('/out/bias') for name in state)
    for block in (f'Transformer/encoderblock_{i}' for i in range(depth)):
        y = norm(f'{block}/{norm_1}', x)
        x = x + attention(f'{block}/{attend}', y, y)
        x = add_mlp(f'{block}/{norm_2}', f'{block}/{mlp}', x)
    x = norm('Transformer/encoder_norm', x)
    if pool == 'map':
        attend, norm_2, mlp = (f'MAPHead_0/{name}' for name in MAP_HEAD)
        probe = np.repeat(state['MAPHead_0/probe'], len(x), axis=0)
        x = add_mlp(norm_2, mlp, attention(attend, probe, x))[:, 0]
    else:
        x = {'cls': x[:, 0], 'gap': x.mean(axis=1)}[pool]
    x = np.tanh(dense('pre_logits', x)) if 'pre_logits/kernel' in state else x
    return dense('head', x) if 'head/kernel' in state else x


def _patches(images, grid, patch):
    """Cuts [b, h, w, c] into [b, n, patch height, patch width, c], row by row."""
    (rows, columns), (height, width) = grid, patch
    x = np.asarray(images, np.float64).reshape(len(images), rows, height, columns, width, -1)
    return x.swapaxes(2, 3).reshape(len(images), rows * columns, height, width, -1)


def _prepend(tokens, x):
    return np.concatenate([*(np.repeat(token, len(x), axis=0) for token in tokens), x], axis=1)


def _sincos2d(rows, columns, dim):
    """As big_vision/models/vit.py has it: frequencies from 1 down to 1e-4, both ends included."""
    frequencies = 10_000.0 ** -np.linspace(0, 1, dim // 4)
    y, x = (np.outer(place.ravel(), frequencies) for place in np.indices((rows, columns)))
    return np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1)


def _attend(q, k, v):
    """Softmax attention of [b, n, heads, size]."""
    scores = np.einsum('bqhd,bkhd->bhqk', q, k) / np.sqrt(q.shape[-1])
    return np.einsum('bhqk,bkhd->bqhd', softmax(scores, axis=-1), v)


def _layer_norm(x, scale, bias, eps):
    deviation = np.sqrt(x.var(axis=-1, keepdims=True) + eps)
    return (x - x.mean(axis=-1, keepdims=True)) / deviation * scale + bias
