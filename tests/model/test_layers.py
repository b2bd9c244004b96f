from types import SimpleNamespace

import jax
import numpy as np
import pytest

from vit_jax.model.layers import attend, best_attention

TPU = SimpleNamespace(platform='tpu', device_kind='TPU v5 lite')
H100 = SimpleNamespace(platform='gpu', device_kind='NVIDIA H100', compute_capability='9.0')
V100 = SimpleNamespace(platform='gpu', device_kind='NVIDIA V100', compute_capability='7.0')
MI300 = SimpleNamespace(platform='gpu', device_kind='AMD MI300X', compute_capability='gfx942')


@pytest.mark.parametrize(
    'device, dtype, n, d, expected',
    [
        (TPU, 'bfloat16', 197, 64, 'pallas'),
        (TPU, 'float32', 1025, 64, 'pallas'),
        (TPU, 'bfloat16', 4097, 64, 'xla'),
        (H100, 'bfloat16', 197, 64, 'cudnn'),
        (H100, 'float32', 197, 64, 'xla'),
        (H100, 'bfloat16', 197, 12, 'xla'),
        (V100, 'bfloat16', 197, 64, 'xla'),
        (MI300, 'bfloat16', 197, 64, 'xla'),
        (jax.devices()[0], 'bfloat16', 197, 64, 'xla'),
    ],
)
def test_auto_is_the_best_for_the_device(device, dtype, n, d, expected):
    assert best_attention(device, jax.numpy.zeros((1, n, 2, d), dtype)) == expected


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
