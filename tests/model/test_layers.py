import jax
import numpy as np
import pytest

from vit_jax.model.layers import attend


@pytest.mark.parametrize('n', [16, 17])
def test_padding_for_cudnn_changes_neither_values_nor_gradients(monkeypatch, n):
    """cuDNN takes even lengths only. Its kernel is replaced with XLA's, which runs everywhere."""
    attention = jax.nn.dot_product_attention
    lengths = []

    def without_card(q, k, v, implementation, **options):
        lengths.append(q.shape[1])
        return attention(q, k, v, implementation='xla', **options)

    monkeypatch.setattr(jax.nn, 'dot_product_attention', without_card)
    *inputs, out = jax.random.normal(jax.random.key(0), (4, 2, n, 3, 8))

    def run(implementation):
        value, gradients = jax.vjp(lambda *x: attend(*x, implementation), *inputs)
        return value, *gradients(out)

    for ours, theirs in zip(run('cudnn'), run('xla'), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)
    assert lengths == [n + n % 2]
