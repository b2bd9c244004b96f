"""One training step and one evaluation step, as pure functions of arrays.

Nothing here knows of devices: `vit_jax.parallel` runs these functions over any number of them.
Under jit a batch is the global batch; under pmap it is one device's share of it, and `axis_name`
names the axis to reduce over.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


class TrainState(struct.PyTreeNode):
    """What training changes. Random keys are not in it: they are derived from the step."""

    step: Any  # int32 scalar, number of steps done
    params: Any
    opt_state: optax.OptState


def create_state(
    key: jax.Array, images: jax.Array, *, model: nn.Module, optimizer: optax.GradientTransformation
) -> TrainState:
    """The state before the first step, drawn from `key`; `images` show the input's shape."""
    return start_state(model.init(key, images)['params'], optimizer=optimizer)


def start_state(params: Any, *, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step, of parameters that are there."""
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))


def step_keys(key: jax.Array, step: Any, position: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Random keys of a step: [b], one for the augmentation of each example; and one for dropout.

    Args:
      key: of the run.
      step: number of steps done before.
      position: each example's place in the global batch, int32 [b].
    """
    augment_key, dropout_key = jax.random.split(jax.random.fold_in(key, step))
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(augment_key, position), dropout_key


def train_step(
    state: TrainState,
    batch: Batch,
    key: jax.Array,
    *,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    augment: Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]],
    normalize: Callable[[jax.Array], jax.Array],
    freeze: Callable[[Any], Any] = lambda params: params,
    axis_name: str | None = None,
) -> tuple[TrainState, Metrics]:
    """Forward, backward, update.

    Args:
      state: before the step.
      batch: 'image' uint8 [b, h, w, c], 'label' int32 [b], 'position' int32 [b] (each example's
        place in the global batch).
      key: of the run; the step's and the examples' keys are folded out of it.
      model, optimizer: as the state was created with.
      augment: (images, labels, keys [b]) → (images, targets [b, num_classes]).
      normalize: uint8 images → the model's input.
      freeze: parameters → parameters, without a gradient where they are not to be trained.
      axis_name: of the mapped axis over devices, under pmap.

    Returns:
      The state after the step, and float32 scalars: 'loss', 'accuracy' (against the labels, on
      augmented images), 'grad_norm' (before clipping).
    """
    keys, dropout_key = step_keys(key, state.step, batch['position'])
    images, targets = augment(batch['image'], batch['label'], keys)
    # Position 0 under jit; under pmap every device's first, so that their masks differ.
    dropout_key = jax.random.fold_in(dropout_key, batch['position'][0])

    def loss_fn(params: Any) -> tuple[jax.Array, jax.Array]:
        logits: Any = model.apply(
            {'params': freeze(params)}, normalize(images), train=True, rngs={'dropout': dropout_key}
        )
        return optax.softmax_cross_entropy(logits, targets).mean(), logits

    (loss, logits), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    metrics = {'loss': loss, 'accuracy': _is_correct(logits, batch['label']).mean()}
    if axis_name is not None:
        grads, metrics = jax.lax.pmean((grads, metrics), axis_name)
    metrics['grad_norm'] = optax.tree.norm(grads)

    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(state.step + 1, params, opt_state), metrics


def eval_step(
    state: TrainState,
    batch: Batch,
    *,
    model: nn.Module,
    normalize: Callable[[jax.Array], jax.Array],
    axis_name: str | None = None,
) -> Metrics:
    """Sums over the examples of a batch that count.

    Args:
      batch: 'image' uint8 [b, h, w, c], 'label' int32 [b], 'mask' float32 [b], 1 where it counts.

    Returns:
      float32 scalars: sums of 'loss' and 'accuracy' (number correct), and the 'count' of examples.
    """
    logits: Any = model.apply({'params': state.params}, normalize(batch['image']))
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch['label'])
    correct = _is_correct(logits, batch['label'])
    mask = batch['mask']
    sums = {'loss': (loss * mask).sum(), 'accuracy': (correct * mask).sum(), 'count': mask.sum()}
    return sums if axis_name is None else jax.lax.psum(sums, axis_name)


def _is_correct(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return (logits.argmax(axis=-1) == labels).astype(jnp.float32)
