"""One training step and one evaluation step, as pure functions of arrays.

Nothing here knows of devices: `vit_jax.parallel` runs these functions over any number of them.
Under jit a batch is the global batch; under pmap it is one device's share of it, and `axis_name`
names the axis to reduce over.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct

from vit_jax.model.flops import flops_per_image
from vit_jax.train.distill import Distillation, both_logits
from vit_jax.train.ema import update_ema
from vit_jax.train.losses import Loss, as_shares, softmax_cross_entropy

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


class TrainState(struct.PyTreeNode):
    """All that a training step updates. It holds no random key: keys are derived from the step."""

    step: Any  # int32 scalar, number of steps done
    params: Any
    opt_state: optax.OptState
    ema: Any = None  # the moving average of the parameters, if there is one


@dataclasses.dataclass(frozen=True)
class Learner:
    """What learns, and how: all of a step that stays the same from step to step.

    Args:
      model: a `vit_jax.ViT`.
      normalize: uint8 images → the model's input.
      augment: (images, labels, keys [b]) → (images, targets [b, num_classes]); None to train on the
        images and labels as they are.
      optimizer: of the parameters; by default they do not change.
      freeze: parameters → parameters without a gradient where they are not to be trained.
      accumulate_steps: parts of a batch whose gradients are computed one after the other, in the
        memory of one part.
      ema_decay: of the moving average of the parameters; 0 for none.
      distillation: how a teacher teaches; None without one.
      place_gradients: puts gradients where the optimizer needs them, see `vit_jax.parallel`.
      loss: of each example, see `vit_jax.train.losses`.
    """

    model: Any
    normalize: Callable[[jax.Array], jax.Array]
    augment: Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]] | None = None
    optimizer: optax.GradientTransformation = dataclasses.field(default_factory=optax.identity)
    freeze: Callable[[Any], Any] = lambda params: params
    accumulate_steps: int = 1
    ema_decay: float = 0.0
    distillation: Distillation | None = None
    place_gradients: Callable[[Any], Any] = lambda gradients: gradients
    loss: Loss = softmax_cross_entropy

    @property
    def flops(self) -> int:
        """Of a training step on one image."""
        taught = flops_per_image(self.distillation.model) if self.distillation else 0
        return 3 * flops_per_image(self.model) + taught

    def init(self, key: jax.Array, images: jax.Array, params: Any = None) -> TrainState:
        """The state before the first step.

        Args:
          key: initialises the parameters.
          images: of the input's shape.
          params: to start from instead.
        """
        params = self.model.init(key, images)['params'] if params is None else params
        # A copy: a step uses up both.
        ema = jax.tree.map(jnp.copy, params) if self.ema_decay else None
        return TrainState(jnp.zeros((), jnp.int32), params, self.optimizer.init(params), ema)

    def train_step(
        self,
        state: TrainState,
        batch: Batch,
        key: jax.Array,
        *,
        teacher: Any = None,
        axis_name: str | None = None,
    ) -> tuple[TrainState, Metrics]:
        """Forward, backward, update.

        Args:
          state: before the step.
          batch: see `vit_jax.data.batches.train_batches`.
          key: of the run; the keys of the step and of its examples are folded out of it.
          teacher: the variables of the distillation's model.
          axis_name: of the mapped axis over devices, under pmap.

        Returns:
          The state after the step, and float32 scalars: 'loss', 'accuracy' (on the augmented
          images, against the labels), 'grad_norm' (before clipping).
        """
        keys, dropout_key = step_keys(key, state.step, batch['position'])
        images, targets = self._augmented(batch, keys)
        distillation = self.distillation

        def loss_fn(params: Any, part: tuple[jax.Array, ...]) -> tuple[jax.Array, Metrics]:
            images, targets, labels, positions = part
            variables, rngs = {'params': self.freeze(params)}, {'dropout': dropout_key}
            apply: Callable[..., Any] = partial(
                self.model.apply, variables, self.normalize(images), train=positions, rngs=rngs
            )
            if distillation is not None and self.model.distilled:
                by_labels, by_teacher = both_logits(apply)
                logits = (by_labels + by_teacher) / 2
            else:
                logits = by_labels = by_teacher = apply()
            loss = self.loss(by_labels, targets).mean()
            if distillation is not None:
                loss = distillation.mix(loss, by_teacher, teacher, images)
            return loss, {'loss': loss, 'accuracy': _is_correct(logits, labels).mean()}

        def gradients(part: tuple[jax.Array, ...]) -> tuple[Any, Metrics]:
            grads, metrics = jax.grad(loss_fn, has_aux=True)(state.params, part)
            return self.place_gradients(grads), metrics

        examples = images, targets, batch['label'], batch['position']
        grads, metrics = mean_over_parts(gradients, examples, self.accumulate_steps)
        if axis_name is not None:
            grads, metrics = jax.lax.pmean((grads, metrics), axis_name)
        metrics['grad_norm'] = optax.tree.norm(grads)

        updates, opt_state = self.optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = state.ema
        if ema is not None:
            ema = update_ema(ema, params, state.step, self.ema_decay)
        return TrainState(state.step + 1, params, opt_state, ema), metrics

    def eval_step(
        self, state: TrainState, batch: Batch, *, axis_name: str | None = None
    ) -> Metrics:
        """Sums over the examples of a batch that count.

        Args:
          state: whose parameters are evaluated, and their moving average.
          batch: see `vit_jax.data.batches.eval_batches`.
          axis_name: see `train_step`.

        Returns:
          float32 scalars: the sums of 'loss' and 'accuracy' (number correct), of 'ema_loss' and
          'ema_accuracy' if there is an average, and 'count'. Of multi-label data also 'examples',
          since its mean average precision is no sum: 'logits' [b, num_classes], 'ema_logits',
          'labels' and 'mask' of all devices.
        """
        images, labels, mask = self.normalize(batch['image']), batch['label'], batch['mask']
        sums = {'count': mask.sum()}
        examples: Any = {'labels': labels, 'mask': mask}
        for prefix, params in ('', state.params), ('ema_', state.ema):
            if params is not None:
                logits: Any = self.model.apply({'params': params}, images)
                sums[f'{prefix}loss'] = (self.loss(logits, labels) * mask).sum()
                sums[f'{prefix}accuracy'] = (_is_correct(logits, labels) * mask).sum()
                examples[f'{prefix}logits'] = logits
        if axis_name is not None:
            sums = jax.lax.psum(sums, axis_name)
        if labels.ndim == 1:
            return sums
        if axis_name is not None:
            examples = jax.lax.all_gather(examples, axis_name, tiled=True)
        return sums | {'examples': examples}

    def _augmented(self, batch: Batch, keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        if self.augment is None:
            return batch['image'], as_shares(batch['label'], self.model.num_classes)
        return self.augment(batch['image'], batch['label'], keys)


def step_keys(key: jax.Array, step: Any, position: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The random keys of a step: [b], one per example for augmentation; and one for dropout.

    Args:
      key: of the run.
      step: number of steps done before.
      position: each example's place in the global batch, int32 [b].
    """
    augment_key, dropout_key = jax.random.split(jax.random.fold_in(key, step))
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(augment_key, position), dropout_key


def mean_over_parts(f: Callable[[Any], Any], batch: Any, parts: int) -> Any:
    """The mean of a function of the parts of a batch, computed one after the other.

    A part is every n-th example, so that each device has its share of each part.

    Args:
      f: part → a tree of float arrays.
      batch: arrays with a leading axis of examples.
      parts: n, which divides the examples of each device.
    """
    if parts == 1:
        return f(batch)
    split = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch)

    def add(sums: Any, part: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, sums, f(part)), None

    first = jax.tree.map(lambda x: x[0], split)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(f, first))
    return jax.tree.map(lambda x: x / parts, jax.lax.scan(add, zeros, split)[0])


def _is_correct(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Whether the likeliest class is right; of multi-label data, all classes above one half."""
    if labels.ndim == 2:
        return ((logits > 0) == (labels > 0)).all(axis=-1).astype(jnp.float32)
    return (logits.argmax(axis=-1) == labels).astype(jnp.float32)
