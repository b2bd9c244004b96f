"""x W as a primitive: every transformation of jax, and the formulation of each platform."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.model.product import product

X, KERNEL = (
    jax.random.normal(jax.random.key(0), (3, 5, 8)),
    jax.random.normal(jax.random.key(1), (8, 7)),
)


@pytest.mark.parametrize(
    'transformed',
    [
        lambda f: f,
        jax.jit,
        lambda f: lambda x, w: jax.jvp(f, (x, w), (x + 1, w - 1)),
        lambda f: lambda x, w: jax.vjp(f, x, w)[1](jnp.ones((3, 5, 7))),
        lambda f: jax.hessian(lambda x, w: (f(x, w) ** 2).sum(), argnums=(0, 1)),
        lambda f: jax.vmap(f, (0, None)),
        lambda f: lambda x, w: jax.vmap(f, (1, None))(x, w),
        lambda f: lambda x, w: jax.vmap(f, (None, 0))(x, jnp.stack([w, -w])),
        lambda f: lambda x, w: jax.vmap(f, (0, 2))(x, jnp.stack([w, -w, 2 * w], axis=2)),
        lambda f: lambda x, w: jax.vmap(jax.grad(lambda w, x: f(x, w).sum()), (None, 0))(w, x),
    ],
)
def test_product_transforms_like_matmul(transformed):
    got, expected = transformed(product)(X, KERNEL), transformed(jnp.matmul)(X, KERNEL)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-5), got, expected)


@pytest.mark.parametrize('platform, flat', [('cpu', True), ('cuda', False), ('tpu', False)])
def test_only_cpus_join_the_leading_axes(platform, flat):
    def step(x, kernel):
        return jax.value_and_grad(lambda x, w: product(x, w).sum(), argnums=(0, 1))(x, kernel)

    text = jax.jit(step).trace(X, KERNEL).lower(lowering_platforms=(platform,)).as_text()
    assert ('tensor<15x8xf32>' in text) == flat and ('tensor<15x7xf32>' in text) == flat


def test_all_platforms_at_once_can_be_exported():
    exported = jax.export.export(jax.jit(product), platforms=('cpu', 'cuda', 'tpu'))(X, KERNEL)
    np.testing.assert_allclose(exported.call(X, KERNEL), X @ KERNEL, atol=1e-5)
