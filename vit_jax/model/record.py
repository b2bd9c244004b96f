"""What a ViT computes on the way to its logits, recorded from the model itself.

Linen can return the outputs of any module (`capture_intermediates`). Queries, keys and tokens are
such outputs already, so the model has no line for it, and its logits stay the same to the bit.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from flax.core import FrozenDict
from jaxtyping import Array, Float, Num

from vit_jax.model.layers import layer_norm
from vit_jax.model.vit import ViT

# Modules whose outputs are recorded: a layer's queries, keys and values; those two normalised, if
# they are; and the tokens after the last layer.
RECORDED = ('to_qkv', 'q_norm', 'k_norm', 'transformer')


class Record(NamedTuple):
    """What was recorded.

    Args:
      logits: [b, num_classes].
      attention: weights of each layer and head, in float32; each row sums to 1. The prefix tokens
        come first, as in the model.
      tokens: after the last layer and the last norm, in float32.
    """

    logits: Float[Array, 'b k']
    attention: Float[Array, 'b l h n n']
    tokens: Float[Array, 'b n d']


def record(
    model: ViT, variables: dict[str, Any] | FrozenDict, images: Num[Array, 'b h w c']
) -> Record:
    """Applies a model and records its attention weights and tokens.

    The weights take 4 · depth · heads · n² bytes for each image: 22 MB for B/16 with 224 pixels.

    Args:
      model: any ViT.
      variables: of the model.
      images: normalised, as for the model.
    """

    def is_recorded(module: nn.Module, _: str) -> bool:
        return module.name in RECORDED

    logits, state = model.apply(
        variables, images, capture_intermediates=is_recorded, mutable='intermediates'
    )
    recorded = state['intermediates']['transformer']
    attn = recorded['attn']['fn']
    qkv = jnp.split(attn['to_qkv']['__call__'][0], 3, axis=-1)  # [l b n (h d)] each
    q, k, _ = (rearrange(t, 'l b n (h d) -> l b n h d', h=model.heads) for t in qkv)
    if model.qk_norm:
        q, k = attn['q_norm']['__call__'][0], attn['k_norm']['__call__'][0]
    q *= q.shape[-1] ** -0.5
    dots = jnp.einsum('l b m h d, l b n h d -> b l h m n', q, k)
    weights = jax.nn.softmax(dots.astype(jnp.float32), axis=-1)
    last_norm = {'params': variables['params']['mlp_head']['layers_0']}
    tokens: Any = layer_norm(model.norm_eps).apply(last_norm, recorded['__call__'][0])
    return Record(logits, weights, tokens)
