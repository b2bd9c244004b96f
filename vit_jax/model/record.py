"""What a ViT computes on the way to its logits, recorded from the model itself.

Linen can return the outputs of any module (`capture_intermediates`) and watch its methods
(`intercept_methods`). So the model has no line for it, and its logits stay the same to the bit.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax.core import FrozenDict
from jaxtyping import Array, Float, Num

from vit_jax.errors import InputError
from vit_jax.model.shapes import image_grid

# Modules whose outputs are recorded: a layer's queries, keys and values; those two normalised, if
# they are; and the tokens after the last layer.
RECORDED = ('to_qkv', 'q_norm', 'k_norm', 'transformer')


Variables = dict[str, Any] | FrozenDict


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


def record(model: Any, variables: Variables, images: Num[Array, 'b h w c']) -> Record:
    """Applies a model and records its attention weights and tokens.

    The weights take 4 · depth · heads · n² bytes for each image: 22 MB for B/16 with 224 pixels.

    Args:
      model: a `vit_jax.ViT`.
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
    q, k = (jax.vmap(model.extras.placed)(x) for x in (q * q.shape[-1] ** -0.5, k))
    dots = jnp.einsum('l b m h d, l b n h d -> b l h m n', q, k)
    weights = jax.nn.softmax(dots.astype(jnp.float32), axis=-1)
    return Record(logits, weights, _last_norm(model, variables, recorded['__call__'][0]))


def tokens(
    vit: Any,
    images: Num[Array | np.ndarray, 'b h w c'],
    *,
    layers: Sequence[int] | None = None,
    normed: bool = True,
    grid: bool = False,
) -> Any:
    """The tokens after the last layer, or after several, from one pass through the model.

    A method of `vit_jax.ViT`: `model.apply(variables, images, method='tokens')`.

    Args:
      images: normalised, as for the model.
      layers: numbers from 0, or from -1 downwards, counted from the last; None for the last alone.
      normed: whether the model's last norm is applied to the tokens, of earlier layers too.
      grid: whether to return the patches only, as a grid.

    Returns:
      The tokens [b, n, dim], those of the prefix (cls, registers) first, or, as a grid, the patches
      [b, rows, columns, dim]; float32. With `layers`, a list of them.

    Raises:
      InputError: if there is no such layer.
    """
    model, variables = vit.unbind()
    height, width = image_grid(model, images.shape)

    def returned(x: jax.Array) -> jax.Array:
        x = _last_norm(model, variables, x) if normed else x.astype(jnp.float32)
        if not grid:
            return x
        return rearrange(x[:, model.num_prefix :], 'b (h w) d -> b h w d', h=height, w=width)

    if layers is None:
        _, state = model.apply(
            variables,
            images,
            capture_intermediates=lambda module, _: module.name == 'transformer',
            mutable='intermediates',
        )
        return returned(state['intermediates']['transformer']['__call__'][0])
    if not all(-model.depth <= layer < model.depth for layer in layers):
        raise InputError(f'layers: expected numbers of {model.depth} layers, from 0, got {layers}')
    with nn.intercept_methods(_keep_layers):
        _, state = model.apply(variables, images, mutable='intermediates')
    (outputs,) = state['intermediates']['transformer']['ff']['layer']  # [l b n d]
    return [returned(outputs[layer]) for layer in layers]


def _keep_layers(
    method: Callable[..., Any], args: tuple, kwargs: dict[str, Any], context: Any
) -> Any:
    """Calls a method of a module, and keeps what a layer returns: its last block's x + f(x)."""
    out = method(*args, **kwargs)
    if context.module.name == 'ff' and context.method_name == '__call__':
        context.module.sow('intermediates', 'layer', out + args[0])
    return out


def _last_norm(model: Any, variables: Variables, tokens: Float[Array, 'b n d']) -> Any:
    return model.apply(variables, tokens, method=lambda vit, x: vit.mlp_head.layers[0](x))
