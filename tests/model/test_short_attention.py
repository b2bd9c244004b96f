"""The TPU kernel, interpreted, against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.model.layers import attend
from vit_jax.model.short_attention import fits, short_attention
from vit_jax.parallel.parallel import create_parallel

SHAPES = [  # tokens, heads, features of a head
    *[(n, 1, 64) for n in (1, 2, 5, 16, 50, 65, 128, 145, 197, 198, 256, 257)],
    *[(17, 3, d) for d in (8, 32, 72, 80, 88)],
]


def in_float64(q, k, v, gradient):
    """Attention and the gradients of q, k and v, in NumPy."""
    q, k, v, gradient = (np.asarray(x, np.float64) for x in (q, k, v, gradient))
    scores = np.einsum('bmhd,bnhd->bhmn', q, k) / q.shape[-1] ** 0.5
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    dp = np.einsum('bmhd,bnhd->bhmn', gradient, v)
    ds = p * (dp - (p * dp).sum(-1, keepdims=True)) / q.shape[-1] ** 0.5
    return (
        np.einsum('bhmn,bnhd->bmhd', p, v),
        np.einsum('bhmn,bnhd->bmhd', ds, k),
        np.einsum('bhmn,bmhd->bnhd', ds, q),
        np.einsum('bhmn,bmhd->bnhd', p, gradient),
    )


def differences(implementation, arrays, expected):
    """The output and the gradients less the expected ones, in units of the latter's scales."""

    def run(q, k, v, gradient):
        out, pull = jax.vjp(lambda *x: attend(*x, implementation), q, k, v)
        return out, *pull(gradient)

    for got, wanted in zip(jax.jit(run)(*arrays), expected, strict=True):
        yield (np.float64(got) - wanted) / max(wanted.std(), 1e-3)


@pytest.mark.parametrize('n, heads, d', SHAPES)
def test_kernel_equals_float64(n, heads, d):
    arrays = jax.random.normal(jax.random.key(n + d), (4, 2, n, heads, d))
    for difference in differences('pallas', arrays, in_float64(*arrays)):
        assert abs(difference).max() < 1e-5


@pytest.mark.parametrize('n, d', [(17, 64), (197, 64), (50, 80)])
def test_bfloat16_errs_no_more_than_xla(n, d):
    arrays = jax.random.normal(jax.random.key(n), (4, 2, n, 2, d), jnp.bfloat16)
    expected = in_float64(*arrays)
    kernel, xla = (
        [np.sqrt((x**2).mean()) for x in differences(name, arrays, expected)]
        for name in ('pallas', 'xla')
    )
    assert all(ours < 1.05 * theirs for ours, theirs in zip(kernel, xla, strict=True))


def test_every_published_length_fits():
    """Of 224 to 512 pixels in patches of 16, and H/14 at 224 pixels, as bfloat16."""
    for n in (50, 197, 257, 577, 1025):
        assert fits(n, 3 * 1024, 2)
    assert fits(257, 3 * 1280, 2) and not fits(1370, 3 * 1280, 2)  # H/14 at 518 pixels


@pytest.mark.parametrize('mode', ['jit', 'pmap'])
def test_each_device_runs_the_kernel_on_its_own_images(mode):
    """XLA refuses to partition a kernel, so what is lowered for TPUs is already in shares."""
    parallel = create_parallel(mode, 16)
    step = parallel.eval_step(lambda qkv, axis_name=None: {'out': short_attention(qkv, 2)})
    shape = (16, 5, 48) if mode == 'jit' else (8, 2, 5, 48)
    qkv = jax.ShapeDtypeStruct(shape, jnp.float32, sharding=parallel.sharded)
    text = jax.jit(lambda x: step(x)).trace(qkv).lower(lowering_platforms=('tpu',)).as_text()
    calls = [line for line in text.splitlines() if 'tpu_custom_call' in line]
    assert len(calls) == 1 and 'tensor<2x5x48xf32>' in calls[0]
