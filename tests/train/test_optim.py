import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import peer
from flax.traverse_util import flatten_dict

import vit_jax
from vit_jax.errors import InputError
from vit_jax.train.optim import create_optimizer, decay_mask

OPTIONS = dict(weight_decay=0.3, b1=0.9, b2=0.95, clip_norm=1.0)


def test_only_kernels_decay():
    model = vit_jax.ViT(
        image_size=8, patch_size=4, num_classes=3, dim=8, depth=2, heads=2, mlp_dim=8
    )
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    mask = flatten_dict(decay_mask(shapes['params']), sep='/')
    decayed = {name for name, decays in mask.items() if decays}
    layer = 'transformer/'
    assert decayed == {
        'to_patch_embedding/kernel',
        'mlp_head/layers_1/kernel',
        layer + 'attn/fn/to_qkv/kernel',
        layer + 'attn/fn/to_out/kernel',
        layer + 'ff/fn/net_0/kernel',
        layer + 'ff/fn/net_1/kernel',
    }


@pytest.mark.parametrize('name', ['adamw', 'sgd'])
def test_updates_equal_torch(name):
    """AdamW, and SGD with momentum: five clipped steps with weight decay on the kernel only."""
    peer('torch')
    import torch

    rng = np.random.default_rng(0)
    params = {'kernel': rng.normal(size=(3, 4)), 'bias': rng.normal(size=4)}
    params = {key: value.astype(np.float32) for key, value in params.items()}
    theirs = {key: torch.nn.Parameter(torch.tensor(value)) for key, value in params.items()}
    decay = {'kernel': 0.3, 'bias': 0.0}
    if name == 'adamw':
        groups = [{'params': [theirs[key]], 'weight_decay': decay[key]} for key in theirs]
        peer_optimizer = torch.optim.AdamW(groups, lr=0.1, betas=(0.9, 0.95))
    else:
        peer_optimizer = torch.optim.SGD(theirs.values(), lr=0.1, momentum=0.9)

    optimizer = create_optimizer(name, optax.constant_schedule(0.1), **OPTIONS)
    state = optimizer.init(params)
    for _ in range(5):
        grads = {key: rng.normal(size=value.shape).astype('f') for key, value in params.items()}
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        for key, parameter in theirs.items():
            parameter.grad = torch.tensor(grads[key])
        torch.nn.utils.clip_grad_norm_(theirs.values(), 1.0)
        if name == 'sgd':  # torch's SGD has no decoupled decay
            with torch.no_grad():
                theirs['kernel'] *= 1 - 0.1 * 0.3
        peer_optimizer.step()
    for key in params:
        np.testing.assert_allclose(params[key], theirs[key].detach().numpy(), atol=1e-5)


def test_unknown_optimizers_raise():
    with pytest.raises(InputError, match='expected one of adamw, sgd'):
        create_optimizer('adam', optax.constant_schedule(0.1), **OPTIONS)
