"""What is dropped in training: paths, attention weights, features before the classifier."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import random_variables

import vit_jax
from vit_jax.errors import InputError
from vit_jax.model.layers import Dropout, DropPath, attend

SMALL = dict(
    image_size=8, patch_size=4, num_classes=3, dim=8, depth=2, heads=2, mlp_dim=12, layer_scale=1.0
)
RNGS = {'dropout': jax.random.key(0)}


def test_drop_path_skips_whole_examples_and_keeps_the_expectation():
    x = jnp.ones((4000, 3, 2), jnp.bfloat16)
    places = jnp.arange(4000)
    drop = jax.jit(lambda x, places: DropPath().apply({}, x, jnp.float32(0.25), places, rngs=RNGS))
    got = drop(x, places)
    assert got.dtype == x.dtype
    got = np.asarray(got, np.float32)
    assert (got == got[:, :1, :1]).all()  # whole examples
    assert set(np.unique(got)) == {0, np.float32(jnp.bfloat16(1 / 0.75))}
    assert got.mean() == pytest.approx(1, abs=0.03)  # 3 standard deviations
    # The keys are the examples' own.
    np.testing.assert_array_equal(drop(x[:7], places[100:107]), got[100:107])


def test_later_layers_are_skipped_more_often():
    """Each example's logits are those of a model without some blocks of the last layer."""
    model = vit_jax.ViT(**SMALL, drop_path=0.5)
    np.testing.assert_array_equal(model.extras.drop_rates(3), np.float32([0, 0.25, 0.5]))
    variables = random_variables(model)
    images = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype(np.float32)
    trained = jax.jit(lambda *x: model.apply(*x, train=True, rngs=RNGS))(variables, images)
    apply, logits = jax.jit(model.apply), []
    for attn in (0, 2):
        for ff in (0, 2):
            changed = jax.tree.map(np.array, variables)
            changed['params']['transformer']['attn']['gamma'][1] *= attn
            changed['params']['transformer']['ff']['gamma'][1] *= ff
            logits.append(apply(changed, images))
    errors = np.abs(np.stack(logits) - trained).max(axis=-1)  # [4, 32]
    assert errors.min(axis=0).max() < 1e-5
    assert set(errors.argmin(axis=0)) == {0, 1, 2, 3}


def test_dropped_attention_weights_are_not_renormalised():
    rng = np.random.default_rng(0)
    q, k, v = rng.normal(size=(3, 4, 5, 2, 6)).astype(np.float32)
    drop = Dropout(0.5)

    def masked(weights):
        return drop.apply({}, weights, train=True, rngs=RNGS)

    got = jax.jit(lambda *qkv: attend(*qkv, 'xla', masked))(q, k, v)
    mask = np.asarray(masked(jnp.ones((4, 2, 5, 5))))
    assert set(np.unique(mask)) == {0, 2}
    scores = np.einsum('bmhd,bnhd->bhmn', q, k) / np.sqrt(6)
    weights = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    expected = np.einsum('bhmn,bnhd->bmhd', weights * mask, v)
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize('option', ['attn_dropout', 'head_dropout', 'drop_path'])
def test_each_rate_acts_only_in_training(option):
    plain = vit_jax.ViT(**SMALL)
    model = plain.clone(**{option: 0.5})
    variables = random_variables(plain)
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
    expected = jax.jit(plain.apply)(variables, images)
    np.testing.assert_array_equal(jax.jit(model.apply)(variables, images), expected)
    trained = jax.jit(lambda *x: model.apply(*x, train=True, rngs=RNGS))(variables, images)
    assert np.abs(trained - expected).max() > 0.01


def test_features_before_the_classifier_are_dropped():
    model = vit_jax.ViT(**SMALL | dict(num_classes=8), head_dropout=0.5)
    variables = jax.tree.map(np.array, random_variables(model))
    classifier = variables['params']['mlp_head']['layers_1']
    classifier['kernel'], classifier['bias'] = np.eye(8, dtype=np.float32), np.zeros(8, np.float32)
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
    features = np.asarray(jax.jit(model.apply)(variables, images))
    got = jax.jit(lambda *x: model.apply(*x, train=True, rngs=RNGS))(variables, images)
    ratios = np.unique(np.round(got / features, 5))
    np.testing.assert_array_equal(ratios, [0, 2])


def test_fused_kernels_cannot_drop_weights():
    with pytest.raises(InputError, match="attn_dropout: expected attention='auto' or 'xla'"):
        vit_jax.ViT(**SMALL, attn_dropout=0.1, attention='pallas')
