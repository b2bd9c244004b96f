"""The optimizer: its update, weight decay, learning rates by layer, frozen parameters."""

import fnmatch
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from vit_jax.errors import InputError
from vit_jax.train.muon import muon
from vit_jax.train.per_layer import per_layer


def decay_mask(params: Any) -> Any:
    """True for kernels: biases, norms, tokens and position embeddings do not decay."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == 'kernel', params)


def learning_rate_factors(params: Any, layer_decay: float, freeze: Sequence[str]) -> Any:
    """Factors of the learning rate for each parameter, layer by layer.

    The head learns at the full rate, each layer at `layer_decay` times the rate of the next, and
    the embeddings at that of a layer before the first, as in BEiT
    (https://arxiv.org/abs/2106.08254). Frozen parameters have 0; where there are adapters, these
    are all but them and the head.

    Args:
      params: of a ViT, or their shapes.
      layer_decay: 1 for the same rate everywhere.
      freeze: `fnmatch` patterns of the names of parameters to freeze, such as
        'to_patch_embedding/*' or '*/norm/*'. The names in a layer contain its number:
        'transformer/0/attn/fn/to_qkv/kernel'.

    Returns:
      A tree like `params`, of NumPy arrays that broadcast over them.

    Raises:
      InputError: if a pattern matches nothing, or they freeze everything.
    """
    if not all(isinstance(pattern, str) for pattern in freeze):
        raise InputError(f'optim.freeze: expected a tuple of patterns, got {freeze!r}')
    unmatched, flat = set(freeze), flatten_dict(params)
    has_adapters = any(path[-1] == 'lora_a' for path in flat)

    def factor(name: str, rate: float) -> float:
        matching = {pattern for pattern in freeze if fnmatch.fnmatchcase(name, pattern)}
        unmatched.difference_update(matching)
        learns = not has_adapters or re.search('^mlp_head/|/lora_[ab]$', name)
        return rate if learns and not matching else 0.0

    depth = len(params['transformer']['attn']['norm']['scale'])
    factors: dict[tuple[str, ...], np.ndarray] = {}
    for path, leaf in flat.items():
        if path[0] == 'transformer':
            names = ['/'.join(('transformer', str(layer), *path[1:])) for layer in range(depth)]
            rates = [factor(n, layer_decay ** (depth - i)) for i, n in enumerate(names)]
            factors[path] = np.array(rates, np.float32).reshape(depth, *[1] * (len(leaf.shape) - 1))
        else:
            rate = 1.0 if path[0] == 'mlp_head' else layer_decay ** (depth + 1)
            factors[path] = np.array(factor('/'.join(path), rate), np.float32)
    if unmatched:
        raise InputError(
            f'optim.freeze: expected patterns of parameter names, such as '
            f"'to_patch_embedding/*' or 'transformer/0/*', but nothing matches {min(unmatched)!r}"
        )
    if not any(x.any() for x in factors.values()):
        raise InputError(
            f'optim.freeze and optim.layer_decay: expected parameters that learn, got {freeze!r} '
            f'and {layer_decay}, which freeze all'
        )
    return unflatten_dict(factors)


def stop_frozen(params: Any, factors: Any) -> Any:
    """The parameters, without a gradient where their factor is 0.

    The backward pass that only frozen parameters need is then skipped, unless only some layers of
    them are frozen: the scan over layers computes the gradients of all.
    """

    def stop(param: jax.Array, factor: np.ndarray) -> jax.Array:
        if factor.all():
            return param
        stopped = jax.lax.stop_gradient(param)
        return jnp.where(factor > 0, param, stopped) if factor.any() else stopped

    return jax.tree.map(stop, params, factors)


def adafactor(b1: float, b2: float, moments_dtype: str) -> optax.GradientTransformation:
    """Adam with a second moment that is stored as its means over rows and over columns.

    Adafactor (https://arxiv.org/abs/1804.04235) as it was changed for "Scaling Vision Transformers"
    (https://arxiv.org/abs/2106.04560) and is in https://github.com/google-research/big_vision: with
    momentum, and with learning rates like AdamW's instead of relative to the parameters. Arrays
    with a side of less than 32 store the second moment whole.

    Args:
      b1: decay of the momentum.
      b2: largest decay of the second moment; after t steps it is 1 - t^-0.8.
      moments_dtype: of the momentum.
    """

    def decay_rate(step: Any, exponent: Any) -> jax.Array:
        return jnp.minimum(b2, 1 - (step + 1.0) ** -exponent)

    return optax.chain(
        optax.scale_by_factored_rms(min_dim_size_to_factor=32, decay_rate_fn=decay_rate),
        optax.ema(b1, debias=False, accumulator_dtype=moments_dtype),
    )


def create_optimizer(
    name: str,
    schedule: optax.Schedule,
    *,
    weight_decay: float,
    b1: float,
    b2: float,
    clip_norm: float,
    factors: Any = None,
    moments_dtype: str = 'float32',
    gated: bool = False,
) -> optax.GradientTransformation:
    """Clips the gradients' global norm, then makes one of several updates of them.

    'adamw'      https://arxiv.org/abs/1711.05101;
    'sgd'        with momentum;
    'lamb'       Adam's update, and the decay, relative to the norm of each kernel
                 (https://arxiv.org/abs/1904.00962), as in timm and NVIDIA's FusedLAMB;
    'lion'       the sign of momentum and gradient (https://arxiv.org/abs/2302.06675);
    'adafactor'  see `adafactor`;
    'muon'       see `vit_jax.train.muon.muon`.

    LAMB, Adafactor and Muon look at whole arrays, and see each layer by itself. Frozen parameters
    stay as they are. Unless only some layers of them are frozen, they take no space in the
    optimizer's state.

    Weight decay is decoupled (Loshchilov and Hutter, https://arxiv.org/abs/1711.05101) and scaled
    by the learning rate: each step subtracts learning_rate * weight_decay * kernel. LAMB's is part
    of what it scales.

    Args:
      name: of the update.
      schedule: steps done → learning rate.
      weight_decay: of kernels only, see `decay_mask`.
      b1: decay of the first moment, or of the momentum; Lion's weight of the momentum in the sign.
      b2: decay of the second moment; Lion's of the momentum.
      clip_norm: largest global norm of the gradients; 0 for no limit.
      factors: of the learning rate, from `learning_rate_factors`; None for 1 everywhere.
      moments_dtype: of the first moment, 'float32' or 'bfloat16'. The second moment stays float32:
        its decay is less than what bfloat16 resolves.
      gated: whether the feed-forward blocks are, see `muon`.

    Raises:
      InputError: if the name or the dtype is unknown.
    """

    def adam(eps: float = 1e-8) -> optax.GradientTransformation:
        return optax.scale_by_adam(b1=b1, b2=b2, eps=eps, mu_dtype=moments_dtype)

    scale_by = {
        'adamw': adam,
        'sgd': lambda: optax.trace(decay=b1, accumulator_dtype=moments_dtype),
        'lamb': lambda: adam(eps=1e-6),  # as published
        'lion': lambda: optax.scale_by_lion(b1=b1, b2=b2, mu_dtype=moments_dtype),
        'adafactor': lambda: per_layer(adafactor(b1, b2, moments_dtype)),
        'muon': lambda: muon(adam(), b1=b1, moments_dtype=moments_dtype, gated=gated),
    }
    if name not in scale_by:
        raise InputError(f'optim.name: expected one of {", ".join(scale_by)}, got {name!r}')
    if moments_dtype not in ('float32', 'bfloat16'):
        raise InputError(
            f"optim.moments_dtype: expected 'float32' or 'bfloat16', got {moments_dtype!r}"
        )
    # Not biases and adapters, which begin at zero: they would grow in proportion to themselves.
    relative = optax.masked(optax.scale_by_trust_ratio(), decay_mask)
    optimizer = optax.chain(
        optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity(),
        scale_by[name](),
        optax.add_decayed_weights(weight_decay, decay_mask),
        *([per_layer(relative)] if name == 'lamb' else []),
        optax.scale_by_learning_rate(schedule),
    )
    if factors is None or all((factor == 1).all() for factor in jax.tree.leaves(factors)):
        return optimizer
    scale = optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, factors))
    trained = jax.tree.map(lambda factor: bool(factor.any()), factors)
    transforms = {True: optimizer, False: optax.set_to_zero()}
    return optax.chain(optax.partition(transforms, trained), scale)
