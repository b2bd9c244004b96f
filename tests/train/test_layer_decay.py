from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import random_variables
from flax.traverse_util import flatten_dict

import vit_jax
from vit_jax.errors import InputError
from vit_jax.train.optim import create_optimizer, learning_rate_factors, stop_frozen
from vit_jax.train.step import Learner

OPTIONS = dict(weight_decay=0.05, b1=0.9, b2=0.999, clip_norm=0.1)
MODEL = vit_jax.ViT(
    image_size=8, patch_size=4, num_classes=3, dim=16, depth=3, heads=2, mlp_dim=24, dim_head=8
)


def shapes():
    images = jax.ShapeDtypeStruct((1, 8, 8, 3), np.float32)
    return jax.eval_shape(MODEL.init, jax.random.key(0), images)['params']


def test_learning_rates_decay_towards_the_input():
    factors = flatten_dict(learning_rate_factors(shapes(), 0.5, ()), sep='/')
    for name, leaf in flatten_dict(shapes(), sep='/').items():
        factor = np.broadcast_to(factors[name], leaf.shape)
        if name.startswith('transformer/'):
            expected = np.array([1 / 8, 1 / 4, 1 / 2])
            assert (factor.reshape(3, -1) == expected[:, None]).all(), name
        else:
            assert (factor == (1.0 if name.startswith('mlp_head/') else 1 / 16)).all(), name


def test_pattern_that_matches_nothing_raises():
    with pytest.raises(InputError, match="nothing matches 'transformer/3/"):
        learning_rate_factors(shapes(), 1.0, ('transformer/2/*', 'transformer/3/*'))


@pytest.mark.parametrize('decay', [1.0, 0.5])
def test_updates_are_scaled_by_the_factors(decay):
    """Updates of frozen parameters are 0; only the others count for clipping."""
    params = random_variables(MODEL)['params']
    rng = np.random.default_rng(0)
    freeze = ('cls_token', 'transformer/1/ff/*')
    factors = learning_rate_factors(params, decay, freeze)
    grads = jax.tree.map(
        lambda p, f: (rng.normal(size=p.shape) * (f > 0)).astype(np.float32), params, factors
    )
    optimizer, plain = (
        create_optimizer('adamw', optax.constant_schedule(0.1), **OPTIONS, factors=x)
        for x in (factors, None)
    )
    updates, state = jax.jit(optimizer.update)(grads, optimizer.init(params), params)
    expected, _ = jax.jit(plain.update)(grads, plain.init(params), params)
    jax.tree.map(
        lambda u, e, f: np.testing.assert_allclose(u, e * f, rtol=1e-6), updates, expected, factors
    )
    assert (
        not updates['cls_token'].any()
        and not updates['transformer']['ff']['norm']['scale'][1].any()
    )
    moments = sum(leaf.size for leaf in jax.tree.leaves(state))
    weights = sum(leaf.size for leaf in jax.tree.leaves(params)) - params['cls_token'].size
    assert 2 * weights <= moments <= 2 * weights + 10  # two moments, and counters


def test_frozen_trunk_has_no_backward_pass():
    """Training the head alone takes hardly more operations than a forward pass."""
    factors = learning_rate_factors(shapes(), 1.0, ('t*', 'pos*', 'cls*'))
    batch = {
        'image': jnp.zeros((4, 8, 8, 3)),
        'label': jnp.zeros(4, jnp.int32),
        'position': jnp.arange(4),
    }

    def flops(factors):
        learner = Learner(
            MODEL,
            normalize=lambda images: images,
            optimizer=create_optimizer(
                'adamw', optax.constant_schedule(0.1), **OPTIONS, factors=factors
            ),
            freeze=partial(stop_frozen, factors=factors),
        )
        state = jax.jit(learner.init)(jax.random.key(0), batch['image'])
        lowered = jax.jit(learner.train_step).lower(state, batch, jax.random.key(0))
        return lowered.compile().cost_analysis()['flops']

    everything = learning_rate_factors(shapes(), 1.0, ())
    # XLA counts the scan's body once per pass, so the full step counts about three times as much.
    assert flops(factors) < 0.5 * flops(everything)
