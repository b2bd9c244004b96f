from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import from_vit_pytorch, peer

from vit_jax.train.optim import create_optimizer
from vit_jax.train.schedule import learning_rate_schedule
from vit_jax.train.step import Learner

ARGUMENTS = dict(image_size=8, patch_size=4, num_classes=5, dim=16, depth=2, heads=2, mlp_dim=24)


def test_training_equals_pytorch(vit_pytorch):
    """Ten steps of clipped SGD with momentum, warm-up and label smoothing, against torch's."""
    import torch

    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (10, 8, 8, 8, 3), np.uint8)
    labels = rng.integers(0, 5, (10, 8)).astype(np.int32)
    torch.manual_seed(0)
    theirs = vit_pytorch.ViT(**ARGUMENTS)
    state_dict = {name: value.numpy().copy() for name, value in theirs.state_dict().items()}
    model, variables = from_vit_pytorch(state_dict, ARGUMENTS)
    schedule = learning_rate_schedule('cosine', 0.05, warmup_steps=3, num_steps=10)
    learner = Learner(
        model,
        normalize=lambda images: images / jnp.float32(127.5) - 1,
        augment=lambda images, labels, _: (images, 0.9 * jax.nn.one_hot(labels, 5) + 0.02),
        optimizer=create_optimizer(
            'sgd', schedule, weight_decay=0.0, b1=0.9, b2=0.999, clip_norm=1.0
        ),
    )
    state = learner.init(jax.random.key(0), jnp.asarray(images[0]), variables['params'])
    step = jax.jit(learner.train_step)
    peer_optimizer = torch.optim.SGD(theirs.parameters(), lr=1.0, momentum=0.9)
    for i in range(10):
        batch = {'image': images[i], 'label': labels[i], 'position': np.arange(8)}
        state, metrics = step(state, batch, jax.random.key(0))

        x = torch.from_numpy(images[i].astype(np.float32)).permute(0, 3, 1, 2) / 127.5 - 1
        loss = torch.nn.functional.cross_entropy(
            theirs(x), torch.from_numpy(labels[i]).long(), label_smoothing=0.1
        )
        peer_optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        peer_optimizer.param_groups[0]['lr'] = float(schedule(i))
        peer_optimizer.step()
        assert metrics['loss'] == pytest.approx(loss.item(), rel=1e-4)
        assert metrics['grad_norm'] == pytest.approx(norm.item(), rel=1e-3)

    state_dict = {name: value.numpy() for name, value in theirs.state_dict().items()}
    expected = from_vit_pytorch(state_dict, ARGUMENTS)[1]['params']
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-4), state.params, expected)
    assert state.step == 10


def test_peer_is_required_in_ci(monkeypatch):
    monkeypatch.setenv('CI', 'true')
    with pytest.raises(pytest.fail.Exception):
        peer('no_such_package')
    monkeypatch.delenv('CI')
    with pytest.raises(pytest.skip.Exception):
        peer('no_such_package')
