"""What a model looks at: its attention to the patches, over the picture and as numbers."""

from typing import Any, TypeVar

import jax
import numpy as np
from jaxtyping import Float32

from vit_jax.model.shapes import pair

Array = TypeVar('Array', np.ndarray, jax.Array)


def patch_attention(
    attention: Float32[Array, '*l n n'], model: Any, size: tuple[int, int] | None = None
) -> Float32[Array, '*l rows columns']:
    """How much of the attention to the patches each patch gets; sums to 1.

    The attention is that of the cls token, or the mean of all patches' if the model has none.

    Args:
      attention: weights, the prefix tokens first.
      model: the `vit_jax.ViT`.
      size: (height, width) of the images in pixels; None for the model's.
    """
    height, width = size or pair(model.image_size)
    p1, p2 = pair(model.patch_size)
    first = model.num_prefix
    row = attention[..., 0, :] if model.class_token else attention[..., first:, :].mean(axis=-2)
    patches = row[..., first:]
    patches = patches / patches.sum(axis=-1, keepdims=True)
    return patches.reshape(*patches.shape[:-1], height // p1, width // p2)


def rollout(attention: Float32[Array, '*b l h n n']) -> Float32[Array, '*b n n']:
    """How much of each input token is in each output token, if layers only mixed tokens.

    A layer mixes by the mean of its heads, and half of it is the residual connection:
    A_l ⋯ A_2 A_1 with A = (mean of heads + I) / 2.

    Reference: https://arxiv.org/abs/2005.00928
    """
    mixing = (attention.mean(axis=-3) + np.eye(attention.shape[-1], dtype=np.float32)) / 2
    rolled: Any = mixing[..., 0, :, :]
    for layer in range(1, mixing.shape[-3]):
        rolled = mixing[..., layer, :, :] @ rolled
    return rolled
