import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import random_images, random_variables
from references.parts import GELU, layer_norm, patches, prepend
from scipy.special import softmax

import vit_jax
from vit_jax.errors import InputError
from vit_jax.model.record import record

SMALL = dict(image_size=12, patch_size=4, num_classes=5, dim=24, depth=3, heads=2, mlp_dim=40)
CASES = {
    "the seed's model": dict(dim_head=16),
    'with registers': dict(num_registers=3, pool='gap', posemb='learned_patches'),
    'normalised queries and keys': dict(qk_norm=True, dim_head=12, qkv_bias=True, pool='map'),
    'scaled layers': dict(layer_scale=0.5, gelu='tanh', remat='none', unroll=3),
    'no cls token': dict(class_token=False, pool='gap', remat='full'),
}


def reference(model, params, images):
    """Attention weights, what each layer returns, and the same normalised; float64, by NumPy."""

    def norm(x, name, p):
        return layer_norm(x, p[name]['scale'], p[name]['bias'], model.norm_eps)

    def linear(x, p):
        return x @ p['kernel'] + p.get('bias', 0)

    params = jax.tree.map(np.float64, params)
    n = model.grid[0] * model.grid[1]
    x = patches(images, model.grid, (4, 4)).reshape(len(images), n, -1)
    x = linear(x, params['to_patch_embedding'])
    x = prepend([params[name] for name in model.prefix], x)
    x[:, -params['pos_embedding'].shape[1] :] += params['pos_embedding']
    weights, layers = [], []
    for layer in range(model.depth):
        attn, ff = (
            jax.tree.map(lambda p, layer=layer: p[layer], params['transformer'][name])
            for name in ('attn', 'ff')
        )
        qkv = linear(norm(x, 'norm', attn), attn['fn']['to_qkv'])
        q, k, v = (np.stack(np.split(t, model.heads, -1), 1) for t in np.split(qkv, 3, -1))
        if model.qk_norm:
            q, k = norm(q, 'q_norm', attn['fn']), norm(k, 'k_norm', attn['fn'])
        weights.append(softmax(q @ k.swapaxes(-1, -2) / np.sqrt(model.dim_head), axis=-1))
        heads = np.concatenate([(weights[-1] @ v)[:, h] for h in range(model.heads)], axis=-1)
        x = x + linear(heads, attn['fn']['to_out']) * attn.get('gamma', 1)
        hidden = GELU[model.gelu](linear(norm(x, 'norm', ff), ff['fn']['net_0']))
        x = x + linear(hidden, ff['fn']['net_1']) * ff.get('gamma', 1)
        layers.append(x)
    normed = [norm(x, 'layers_0', params['mlp_head']) for x in layers]
    return np.stack(weights, axis=1), layers, normed


@pytest.mark.parametrize('options', CASES.values(), ids=CASES)
def test_record_equals_an_independent_computation(options):
    model = vit_jax.ViT(**SMALL | options)
    variables, images = jax.tree.map(jnp.asarray, random_variables(model)), random_images()
    found = jax.jit(record, static_argnums=0)(model, variables, images)
    attention, layers, normed = reference(model, variables['params'], images)
    np.testing.assert_allclose(found.attention, attention, atol=1e-5)
    np.testing.assert_allclose(found.tokens, normed[-1], atol=1e-4)
    np.testing.assert_allclose(found.attention.sum(-1), 1, atol=1e-5)

    def tokens(**options):
        return model.apply(variables, images, method='tokens', **options)

    np.testing.assert_allclose(tokens(), normed[-1], atol=1e-4)
    np.testing.assert_allclose(tokens(layers=(0, -1)), [normed[0], normed[-1]], atol=1e-4)
    (grid,) = tokens(layers=[1], normed=False, grid=True)
    patches = layers[1][:, model.num_prefix :].reshape(len(images), *model.grid, -1)
    np.testing.assert_allclose(grid, patches, atol=1e-4)
    with pytest.raises(InputError, match='layers: expected numbers of 3 layers, from 0, got'):
        tokens(layers=(3,))


@pytest.mark.parametrize(
    'options', [*CASES.values(), dict(dtype='bfloat16')], ids=[*CASES, 'bfloat16']
)
def test_recording_changes_no_bit_of_the_logits(options):
    model = vit_jax.ViT(**SMALL | options)
    variables, images = random_variables(model), random_images()
    logits = jax.jit(model.apply)(variables, images)
    recorded = jax.jit(record, static_argnums=0)(model, variables, images).logits
    assert np.asarray(logits).tobytes() == np.asarray(recorded).tobytes()
