"""The loss of each example: cross-entropy of a softmax or of sigmoids, with weights of the classes.

Targets are classes, int [b]; or shares of the classes [b, num_classes]: a distribution for the
softmax, each 0 to 1 for the sigmoids. Weights [num_classes] multiply what the presence of a class
contributes, as torch's `CrossEntropyLoss(weight=)` and `BCEWithLogitsLoss(pos_weight=)` do.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float32, Int, Num, UInt8

from vit_jax.data.memory import InMemory
from vit_jax.data.stream import Stream
from vit_jax.errors import InputError

Loss = Callable[[jax.Array, jax.Array], jax.Array]
Targets = Int[Array, 'b'] | Num[Array, 'b k']


def softmax_cross_entropy(
    logits: Float32[Array, 'b k'], targets: Targets, weights: Float32[np.ndarray, 'k'] | None = None
) -> Float32[Array, 'b']:
    """-Σ_c w_c t_c log softmax(x)_c.

    The mean over a batch divides by its size, as torch's does for targets that are distributions;
    for classes, torch divides by the sum of their weights, which differs from batch to batch.
    """
    if weights is not None:
        targets = jnp.asarray(weights) * as_shares(targets, logits.shape[-1])
    if targets.ndim == 1:
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    return optax.softmax_cross_entropy(logits, targets)


def sigmoid_cross_entropy(
    logits: Float32[Array, 'b k'], targets: Targets, weights: Float32[np.ndarray, 'k'] | None = None
) -> Float32[Array, 'b']:
    """-mean_c [w_c t_c log σ(x_c) + (1 - t_c) log σ(-x_c)].

    The mean over the classes is that of torch and of timm's BinaryCrossEntropy
    (https://github.com/huggingface/pytorch-image-models); so the loss of a guess is ln 2 for any
    number of classes. big_vision's sigmoid_xent is the sum. For single labels, see "ResNet strikes
    back", https://arxiv.org/abs/2110.00476.
    """
    targets = as_shares(targets, logits.shape[-1])
    present = targets if weights is None else weights * targets
    terms = present * jax.nn.log_sigmoid(logits) + (1 - targets) * jax.nn.log_sigmoid(-logits)
    return -terms.mean(axis=-1)


LOSSES = {'softmax': softmax_cross_entropy, 'sigmoid': sigmoid_cross_entropy}


def as_shares(targets: Targets, num_classes: int) -> Float32[Array, 'b {num_classes}']:
    """Targets as shares of the classes; one of them, if they are classes."""
    if targets.ndim == 1:
        return jax.nn.one_hot(targets, num_classes)
    return targets.astype(jnp.float32)


def create_loss(
    name: str | None, class_weights: tuple[Any, ...], examples: InMemory | Stream, num_classes: int
) -> Loss:
    """The loss that options describe.

    Args:
      name: 'softmax', 'sigmoid', or None for what the labels need.
      class_weights: () for none, ('balanced',) or a number for each class, see `balanced_weights`.
      examples: of the training split.
      num_classes: of the data.

    Raises:
      InputError: if an option is wrong, or does not fit the labels.
    """
    name = name or ('sigmoid' if examples.multi_label else 'softmax')
    if name not in LOSSES:
        raise InputError(f"loss.name: expected 'softmax' or 'sigmoid', got {name!r}")
    if name == 'softmax' and examples.multi_label:
        raise InputError("loss.name: expected 'sigmoid' for multi-label data, got 'softmax'")
    if not class_weights:
        return LOSSES[name]
    if class_weights == ('balanced',):
        weights = balanced_weights(examples.labels, num_classes)
    elif len(class_weights) == num_classes and all(map(_is_weight, class_weights)):
        weights = np.array(class_weights, np.float32)
    else:
        raise InputError(
            f'loss.class_weights: expected () for none, balanced, or a positive number for each of '
            f'the {num_classes} classes, got {class_weights}'
        )
    return partial(LOSSES[name], weights=weights)


def balanced_weights(
    labels: Int[np.ndarray, 'n'] | UInt8[np.ndarray, 'n k'], num_classes: int
) -> Float32[np.ndarray, 'k']:
    """Weights with which all classes count the same: n / (k n_c), whose mean over the labels is 1.

    n is the number of all labels and n_c of those of class c, as in scikit-learn's 'balanced'.

    Raises:
      InputError: if a class has no example.
    """
    if labels.ndim == 2:
        counts = labels.sum(axis=0, dtype=np.int64)
    else:
        counts = np.bincount(labels, minlength=num_classes)
    if not counts.all():
        raise InputError(
            f"loss.class_weights='balanced': expected examples of each class in the training "
            f'split, got none of class {counts.argmin()}'
        )
    return (counts.sum() / (num_classes * counts)).astype(np.float32)


def _is_weight(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 3e38
