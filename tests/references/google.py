"""Google's Vision Transformers in float64: random weights under its names, and logits.

Written from the peer's public source, independent of `vit_jax`:
google-research/vision_transformer and google-research/big_vision.
"""

import numpy as np
from references.parts import GELU, attend, layer_norm, patches, prepend

CLASSIC = 'LayerNorm_0', 'MultiHeadDotProductAttention_1', 'LayerNorm_2', 'MlpBlock_3'
LINEN = 'LayerNorm_0', 'MultiHeadDotProductAttention_0', 'LayerNorm_1', 'MlpBlock_0'
MAP_HEAD = 'MultiHeadDotProductAttention_0', 'LayerNorm_0', 'MlpBlock_0'


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
    'classic' from before Flax numbered each kind of module separately, see its checkpoint.py)
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
    """The logits of Google's models in evaluation; without a head, its input.

    Sources: vit_jax/models_vit.py of google-research/vision_transformer, big_vision/models/vit.py.
    Both keep Flax's defaults, also in the MAP head: LayerNorm's eps is 1e-6, GELU is 'tanh'.
    """
    state = {name: np.asarray(value, np.float64) for name, value in state.items()}
    scanned = 'Transformer/encoderblock/'
    for name in [name for name in state if name.startswith(scanned)]:
        for i, value in enumerate(state.pop(name)):
            state[f'Transformer/encoderblock_{i}/{name.removeprefix(scanned)}'] = value

    def dense(name, x, axes=1):
        return np.tensordot(x, state[f'{name}/kernel'], axes) + state[f'{name}/bias']

    def norm(name, x):
        return layer_norm(x, state[f'{name}/scale'], state[f'{name}/bias'], 1e-6)

    def attention(name, x, memory):
        k, v = dense(f'{name}/key', memory), dense(f'{name}/value', memory)
        return dense(f'{name}/out', attend(dense(f'{name}/query', x), k, v), axes=2)

    def add_mlp(norm_name, name, x):
        y = dense(f'{name}/Dense_0', norm(norm_name, x))
        return x + dense(f'{name}/Dense_1', GELU['tanh'](y))

    x = dense('embedding', patches(images, grid, patch), axes=3)
    if 'Transformer/posembed_input/pos_embedding' in state:
        x = prepend([state['cls']], x) + state['Transformer/posembed_input/pos_embedding']
    else:
        x = x + state.get('pos_embedding', _sincos2d(*grid, x.shape[-1]))
        x = prepend([state['cls']] if pool == 'cls' else [], x)
    classic = f'Transformer/encoderblock_0/{CLASSIC[1]}/out/bias' in state
    norm_1, heads, norm_2, mlp = CLASSIC if classic else LINEN
    depth = sum(name.startswith('Transformer/') and name.endswith('/out/bias') for name in state)
    for block in (f'Transformer/encoderblock_{i}' for i in range(depth)):
        y = norm(f'{block}/{norm_1}', x)
        x = x + attention(f'{block}/{heads}', y, y)
        x = add_mlp(f'{block}/{norm_2}', f'{block}/{mlp}', x)
    x = norm('Transformer/encoder_norm', x)
    if pool == 'map':
        heads, norm_2, mlp = (f'MAPHead_0/{name}' for name in MAP_HEAD)
        probe = np.repeat(state['MAPHead_0/probe'], len(x), axis=0)
        x = add_mlp(norm_2, mlp, attention(heads, probe, x))[:, 0]
    else:
        x = {'cls': x[:, 0], 'gap': x.mean(axis=1)}[pool]
    x = np.tanh(dense('pre_logits', x)) if 'pre_logits/kernel' in state else x
    return dense('head', x) if 'head/kernel' in state else x


def _sincos2d(rows, columns, dim):
    """As in big_vision/models/vit.py: frequencies from 1 down to 1e-4, both ends included."""
    frequencies = 10_000.0 ** -np.linspace(0, 1, dim // 4)
    y, x = (np.outer(place.ravel(), frequencies) for place in np.indices((rows, columns)))
    return np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1)
