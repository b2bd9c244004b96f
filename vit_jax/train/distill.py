"""Knowledge distillation: a model learns from the answers of a frozen teacher too."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import optax
from jaxtyping import Array, Float, UInt8

from vit_jax.data.preprocess import Preprocessing
from vit_jax.model.vit import ViT

KINDS = ('hard', 'soft')


def hard_loss(
    logits: Float[Array, 'b num_classes'], taught: Float[Array, 'b num_classes']
) -> Float[Array, '']:
    """Mean cross-entropy with the teacher's decisions, argmax t.

    Args:
      logits: of the student.
      taught: logits of the teacher, t.

    Reference: https://arxiv.org/abs/2012.12877
    """
    return optax.softmax_cross_entropy_with_integer_labels(logits, taught.argmax(axis=-1)).mean()


def soft_loss(
    logits: Float[Array, 'b num_classes'],
    taught: Float[Array, 'b num_classes'],
    temperature: float,
) -> Float[Array, '']:
    """T² KL(softmax(t / T) ‖ softmax(s / T)), the mean over the examples.

    T² keeps the gradients as large as those of the labels at any temperature.

    Args:
      logits: of the student, s.
      taught: logits of the teacher, t.
      temperature: T.

    Reference: https://arxiv.org/abs/1503.02531
    """
    log_predictions, log_targets = (jax.nn.log_softmax(x / temperature) for x in (logits, taught))
    divergences = optax.losses.kl_divergence_with_log_targets(log_predictions, log_targets)
    return temperature**2 * divergences.mean()


@dataclasses.dataclass(frozen=True)
class Distillation:
    """What a teacher adds to the loss. Its parameters are not here: a step takes them.

    Args:
      model: the teacher, a `vit_jax.ViT` for the same classes.
      preprocessing: of the pictures that it was trained on.
      kind: 'hard' or 'soft', see `hard_loss` and `soft_loss`.
      alpha: share of the teacher in the loss, [0, 1].
      temperature: of 'soft', above 0.
    """

    model: ViT
    preprocessing: Preprocessing
    kind: str
    alpha: float
    temperature: float

    def mix(
        self,
        loss: Float[Array, ''],
        logits: Float[Array, 'b num_classes'],
        teacher: Any,
        images: UInt8[Array, 'b h w c'],
    ) -> Float[Array, '']:
        """(1 - alpha) · the loss by the labels + alpha · the loss by the teacher.

        Args:
          loss: by the labels.
          logits: that learn from the teacher.
          teacher: its variables.
          images: that the student sees, before they are normalised.
        """
        seen = self.preprocessing.normalize(images)
        seen = jax.image.resize(seen, (len(seen), *self.preprocessing.shape), 'bilinear')
        taught: Any = self.model.apply(teacher, seen)
        if self.kind == 'hard':
            taught_loss = hard_loss(logits, taught)
        else:
            taught_loss = soft_loss(logits, taught, self.temperature)
        return (1 - self.alpha) * loss + self.alpha * taught_loss


def both_logits(
    apply: Callable[..., Any],
) -> tuple[Float[Array, 'b num_classes'], Float[Array, 'b num_classes']]:
    """The logits of a distilled model's cls token and of its distillation token, before their mean.

    Args:
      apply: the `apply` of a `vit_jax.ViT` with all arguments of a forward pass.
    """

    def is_classifier(module: nn.Module, _: str) -> bool:
        return module.path in (('mlp_head', 'layers_1'), ('mlp_head', 'dist'))

    _, captured = apply(capture_intermediates=is_classifier, mutable='intermediates')
    head = captured['intermediates']['mlp_head']
    return head['layers_1']['__call__'][0], head['dist']['__call__'][0]
