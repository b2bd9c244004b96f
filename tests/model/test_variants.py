import jax
import numpy as np
import pytest

import vit_jax
from vit_jax.errors import InputError

# From big_vision: 1000 classes, 224 pixels, cls token, learned position embedding.
NUM_PARAMETERS = {
    'Ti/16': 5_717_416,
    'S/16': 22_050_664,
    'S/32': 22_878_952,
    'M/16': 38_837_736,
    'B/16': 86_567_656,
    'B/32': 88_224_232,
    'B/8': 86_576_872,
    'L/16': 304_326_632,
    'L/32': 306_535_400,
    'So400m/14': 413_597_656,
    'H/14': 632_045_800,
    'g/14': 1_012_611_432,
    'G/14': 1_844_440_680,
}


@pytest.mark.parametrize('name', NUM_PARAMETERS)
def test_variants_have_their_published_parameter_counts(name):
    model = vit_jax.create_model(name)
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == NUM_PARAMETERS[name]


@pytest.mark.parametrize(
    'name, options, expected',
    [
        ('B/16', dict(pool='gap', class_token=False), 86_566_120),
        (
            'S/16',
            dict(pool='gap', class_token=False, posemb='sincos2d', representation_size=384),
            22_122_472,
        ),
        # Distilled DeiT-B: one more token, position and head.
        ('B/16', dict(distilled=True), 86_567_656 + 2 * 768 + 769 * 1000),
        # One more attention and feed-forward, a probe and a norm.
        (
            'B/16',
            dict(pool='map', class_token=False),
            86_566_120 + 768 + 4 * 768 * 769 + 2 * 768 + (768 + 1) * 3072 + (3072 + 1) * 768,
        ),
        ('S/16', dict(num_registers=4), 22_050_664 + 2 * 4 * 384),
        ('S/16', dict(layer_scale=1e-5, qk_norm=True), 22_050_664 + 12 * (2 * 384 + 4 * 64)),
    ],
)
def test_options_have_the_expected_parameter_counts(name, options, expected):
    model = vit_jax.create_model(name, **options)
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == expected


def test_sincos2d_follows_its_formula_and_takes_smaller_images():
    """Against the formula of MoCo v3, one feature at a time."""
    from vit_jax.model.layers import sincos2d

    got = sincos2d(3, 5, 16)
    assert got.shape == (1, 15, 16)
    for y in range(3):
        for x in range(5):
            for i in range(4):
                omega = 10_000 ** (-i / 3)
                expected = [f(p * omega) for p in (x, y) for f in (np.sin, np.cos)]
                np.testing.assert_allclose(got[0, y * 5 + x, i::4], expected, atol=1e-6)
    model = vit_jax.create_model(
        'Ti/16', image_size=64, pool='gap', class_token=False, posemb='sincos2d', depth=1
    )
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 64, 64, 3), np.float32))
    assert model.apply(variables, np.zeros((1, 32, 48, 3), np.float32)).shape == (1, 1000)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(class_token=False), "pool='cls': expected class_token=True"),
        (dict(distilled=True, pool='gap'), "distilled: expected pool='cls'"),
        (dict(fc_norm=True), "fc_norm: expected pool='gap'"),
        (dict(posemb='sincos2d', dim=30), 'expected dim a multiple of 4'),
        (dict(num_registers=-1), 'expected num_registers a whole number from 0 to 65,536'),
        (dict(posemb='rotary'), 'expected posemb out of'),
    ],
)
def test_invalid_or_incompatible_options_raise(options, message):
    with pytest.raises(InputError, match=message):
        vit_jax.create_model('Ti/16', **options)


def test_options_override_the_variant():
    model = vit_jax.create_model('Ti/16', image_size=(64, 32), num_classes=10, depth=3)
    assert (model.depth, model.image_size, model.num_classes, model.dim) == (3, (64, 32), 10, 192)


@pytest.mark.parametrize('name', ['B', 'B/', 'X/16', 'b/16', 'B/16x', 'B/-1', ''])
def test_unknown_variants_raise(name):
    with pytest.raises(InputError, match="expected a variant such as 'B/16'"):
        vit_jax.create_model(name)


def test_wrong_options_raise():
    with pytest.raises(InputError, match=r'expected arguments of ViT, got deep'):
        vit_jax.create_model('B/16', deep=3)
    with pytest.raises(InputError, match='patch_size must divide image_size'):
        vit_jax.create_model('B/16', image_size=100)


def test_variant_computes_its_published_formulas():
    """Against a forward pass in float64, written from the papers: qkv bias, tanh GELU, eps 1e-6."""
    model = vit_jax.create_model('Ti/16', image_size=32, num_classes=5, depth=2)
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), images)
    rng = np.random.default_rng(1)
    # Small activations before the first norm, so that its epsilon matters.
    params = jax.tree.map(lambda x: rng.normal(size=x.shape, scale=0.2), variables['params'])
    for name in ('pos_embedding', 'cls_token', 'to_patch_embedding'):
        params[name] = jax.tree.map(lambda x: x * 1e-2, params[name])

    def norm(x, p):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * p['scale'] + p['bias']

    def linear(x, p):
        return x @ p['kernel'] + p['bias']

    patches = images.astype(np.float64).reshape(2, 2, 16, 2, 16, 3).transpose(0, 1, 3, 2, 4, 5)
    x = linear(patches.reshape(2, 4, 768), params['to_patch_embedding'])
    x = np.concatenate([np.repeat(params['cls_token'], 2, 0), x], 1) + params['pos_embedding']
    for layer in range(2):
        attn, ff = (
            jax.tree.map(lambda p, layer=layer: p[layer], params['transformer'][name])
            for name in ('attn', 'ff')
        )
        qkv = linear(norm(x, attn['norm']), attn['fn']['to_qkv'])
        q, k, v = (t.reshape(2, 5, 3, 64).swapaxes(1, 2) for t in np.split(qkv, 3, axis=-1))
        weights = np.exp(q @ k.swapaxes(-1, -2) / 8)
        out = (weights / weights.sum(-1, keepdims=True)) @ v
        x = x + linear(out.swapaxes(1, 2).reshape(2, 5, 192), attn['fn']['to_out'])
        h = linear(norm(x, ff['norm']), ff['fn']['net_0'])
        h = 0.5 * h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))
        x = x + linear(h, ff['fn']['net_1'])
    expected = linear(norm(x[:, 0], params['mlp_head']['layers_0']), params['mlp_head']['layers_1'])

    got = model.apply({'params': jax.tree.map(np.float32, params)}, images)
    np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())
    for other in (dict(gelu='erf'), dict(norm_eps=1e-5)):
        wrong = model.clone(**other).apply({'params': jax.tree.map(np.float32, params)}, images)
        assert np.abs(wrong - expected).max() > 5e-5 * np.abs(expected).max(), other
