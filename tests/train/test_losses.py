import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import peer

from vit_jax.data.memory import InMemory
from vit_jax.errors import InputError
from vit_jax.train.losses import (
    balanced_weights,
    create_loss,
    sigmoid_cross_entropy,
    softmax_cross_entropy,
)

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 4)).astype(np.float32) * 5
LABELS = RNG.integers(0, 4, 6).astype(np.int32)
MIXED = RNG.dirichlet(np.ones(4), 6).astype(np.float32)
SEVERAL = RNG.integers(0, 2, (6, 4)).astype(np.uint8)
WEIGHTS = np.float32([0.2, 1.0, 3.0, 0.5])
EITHER = pytest.mark.parametrize('weights', [None, WEIGHTS], ids=['plain', 'weighted'])


def in_memory(labels):
    return InMemory(np.zeros((len(labels), 1, 1, 1), np.uint8), labels)


def assert_equals_torch(ours, theirs):
    """Mean loss and its gradient.

    Args:
      ours, theirs: logits → the loss of each example.
    """
    peer('torch')
    import torch

    logits = torch.from_numpy(LOGITS).requires_grad_()
    expected = theirs(logits).mean()
    expected.backward()
    got, gradient = jax.value_and_grad(lambda x: ours(x).mean())(jnp.asarray(LOGITS))
    assert got == pytest.approx(expected.item(), rel=1e-6)
    np.testing.assert_allclose(gradient, logits.grad, atol=1e-6)


@EITHER
@pytest.mark.parametrize('targets', [LABELS, MIXED], ids=['classes', 'mixed'])
def test_softmax_cross_entropy_is_torchs(weights, targets):
    import torch

    weight = None if weights is None else torch.from_numpy(weights)
    loss = torch.nn.CrossEntropyLoss(weight=weight, reduction='none')
    target = torch.from_numpy(targets)
    target = target.long() if target.ndim == 1 else target
    assert_equals_torch(
        lambda logits: softmax_cross_entropy(logits, jnp.asarray(targets), weights),
        lambda logits: loss(logits, target),
    )


@EITHER
@pytest.mark.parametrize('targets', [LABELS, MIXED, SEVERAL], ids=['classes', 'mixed', 'several'])
def test_sigmoid_cross_entropy_is_torchs(weights, targets):
    import torch

    pos_weight = None if weights is None else torch.from_numpy(weights)
    loss = torch.nn.BCEWithLogitsLoss(pos_weight=pos_weight, reduction='none')
    target = torch.from_numpy(np.eye(4)[targets] if targets.ndim == 1 else targets).float()
    assert_equals_torch(
        lambda logits: sigmoid_cross_entropy(logits, jnp.asarray(targets), weights),
        lambda logits: loss(logits, target).mean(1),
    )


def test_unweighted_softmax_compiles_to_the_program_of_optax():
    """Runs from before the option go on bit for bit."""
    for targets, theirs in (
        (LABELS, optax.softmax_cross_entropy_with_integer_labels),
        (MIXED, optax.softmax_cross_entropy),
    ):
        texts = [str(jax.make_jaxpr(f)(LOGITS, targets)) for f in (softmax_cross_entropy, theirs)]
        assert texts[0] == texts[1]


def test_labels_choose_the_loss():
    single, several = in_memory(LABELS), in_memory(SEVERAL)
    assert create_loss(None, (), single, 4) is softmax_cross_entropy
    assert create_loss(None, (), several, 4) is sigmoid_cross_entropy
    assert create_loss('sigmoid', (), single, 4) is sigmoid_cross_entropy
    for weights in ((0.2, 1, 3.0, 0.5), ('balanced',)):
        loss = create_loss(None, weights, several, 4)
        expected = balanced_weights(SEVERAL, 4) if weights == ('balanced',) else WEIGHTS
        np.testing.assert_array_equal(loss.keywords['weights'], expected)


@pytest.mark.parametrize(
    'name, weights, labels, message',
    [
        ('hinge', (), LABELS, "loss.name: expected 'softmax' or 'sigmoid', got 'hinge'"),
        ('softmax', (), SEVERAL, "loss.name: expected 'sigmoid' for multi-label data"),
        (None, (1.0, 2.0), LABELS, 'a positive number for each of the 4 classes, got'),
        (None, (1.0, 2.0, 3.0, 0.0), LABELS, 'a positive number for each of the 4 classes, got'),
        (None, ('even',), LABELS, 'loss.class_weights: expected'),
        (None, ('balanced',), np.int32([0, 1, 3]), 'got none of class 2'),
    ],
)
def test_losses_that_do_not_fit_raise(name, weights, labels, message):
    with pytest.raises(InputError, match=message):
        create_loss(name, weights, in_memory(labels), 4)


def test_balanced_weights_are_scikit_learns():
    peer('sklearn')
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.repeat(np.arange(3, dtype=np.int32), [5, 1, 30])
    expected = compute_class_weight('balanced', classes=np.arange(3), y=labels)
    np.testing.assert_allclose(balanced_weights(labels, 3), expected, rtol=1e-6)
    one_hot = np.eye(3, dtype=np.uint8)[labels]
    np.testing.assert_array_equal(balanced_weights(one_hot, 3), balanced_weights(labels, 3))
