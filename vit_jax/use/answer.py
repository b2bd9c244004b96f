"""What a trained model answers to uint8 images of its size: the same functions in a `Predictor`
and in every export.

Each takes the `vit_jax.ViT`, the preprocessing, variables and images [b, h, w, c]. Probabilities
of a multi-label model are those of each class by itself, sigmoids; otherwise they sum to 1.
"""

from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float, Float32, UInt8

from vit_jax.data.preprocess import Preprocessing
from vit_jax.model.record import record
from vit_jax.model.vit import ViT
from vit_jax.use.attention import patch_attention, rollout

Images = UInt8[Array, 'b h w c']


class Attended(NamedTuple):
    """Classes, and where the model looked.

    Args:
      probabilities: of the classes [b, num_classes].
      attention: to each patch, of every layer and head [b, depth, heads, rows, columns]; see
        `vit_jax.use.attention`.
      rollout: to each patch, through all layers [b, rows, columns].
    """

    probabilities: Any
    attention: Any
    rollout: Any


def probabilities(
    model: ViT,
    preprocessing: Preprocessing,
    variables: Any,
    images: Images,
    *,
    multi_label: bool = False,
) -> Float32[Array, 'b k']:
    """Of the classes."""
    logits: Any = model.apply(variables, preprocessing.normalize(images))
    return of_logits(logits, multi_label)


def of_logits(logits: Float32[Array, 'b k'], multi_label: bool) -> Float32[Array, 'b k']:
    """Probabilities of the classes."""
    return jax.nn.sigmoid(logits) if multi_label else jax.nn.softmax(logits)


def features(
    model: ViT, preprocessing: Preprocessing, variables: Any, images: Images
) -> Float32[Array, 'b d']:
    """What the classifier reads, or would read if there were one."""
    read: Any = model.clone(num_classes=0).apply(variables, preprocessing.normalize(images))
    return read


def tokens(
    model: ViT, preprocessing: Preprocessing, variables: Any, images: Images
) -> Float32[Array, 'b n d']:
    """After the last norm, those of the prefix (cls, registers) first."""
    found: Any = model.apply(variables, preprocessing.normalize(images), method='tokens')
    return found


def attention(
    model: ViT, preprocessing: Preprocessing, variables: Any, images: Images
) -> Float[Array, 'b l heads n n']:
    """The weights of all layers and heads, see `vit_jax.model.record`."""
    return record(model, variables, preprocessing.normalize(images)).attention


def attended(
    model: ViT,
    preprocessing: Preprocessing,
    variables: Any,
    images: Images,
    *,
    multi_label: bool = False,
) -> Attended:
    """Probabilities, and maps of attention, which take far less memory than the weights."""
    recorded = record(model, variables, preprocessing.normalize(images))
    each = patch_attention(recorded.attention, model)
    together = patch_attention(rollout(recorded.attention), model)
    return Attended(of_logits(recorded.logits, multi_label), each, together)
