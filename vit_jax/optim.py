"""The learning-rate schedule, what decays, learns slower or not at all, and the optax chain."""

import fnmatch
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from vit_jax.errors import InputError


def learning_rate_schedule(optim: Any, num_steps: int) -> optax.Schedule:
    """Linear from 0 over `warmup_steps`, then a cosine down to 0 at `num_steps`.

    Args:
      optim: `config.optim`.
      num_steps: length of the run.

    Returns:
      step → learning rate.

    Raises:
      InputError: where the warm-up is as long as the run.
    """
    if not 0 <= optim.warmup_steps < num_steps:
        raise InputError(
            f'optim.warmup_steps: expected fewer than the {num_steps} steps of the run, '
            f'got {optim.warmup_steps}'
        )
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=optim.learning_rate,
        warmup_steps=optim.warmup_steps,
        decay_steps=num_steps,
    )


def decay_mask(params: Any) -> Any:
    """True for the kernels; biases, norms, cls token and position embedding do not decay."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == 'kernel', params)


def learning_rate_factors(params: Any, layer_decay: float, freeze: Sequence[str]) -> Any:
    """What to multiply the learning rate with, for each parameter and each layer of it.

    The head learns at the full rate, each layer before it `layer_decay` times as fast as the next,
    and the embeddings slower still, as in BEiT (https://arxiv.org/abs/2106.08254); what is frozen
    has 0.

    Args:
      params: of a ViT, or their shapes.
      layer_decay: 1 for the same rate everywhere.
      freeze: patterns, as of `fnmatch`, of the names of parameters that stay as they are, such as
        'to_patch_embedding/*' or '*/norm/*'. A layer's have its number in them:
        'transformer/0/attn/fn/to_qkv/kernel'.

    Returns:
      The tree of `params` with NumPy arrays that broadcast over them.

    Raises:
      InputError: where a pattern matches nothing.
    """
    if not all(isinstance(pattern, str) for pattern in freeze):
        raise InputError(f'optim.freeze: expected a tuple of patterns, got {freeze!r}')
    unmatched = set(freeze)

    def factor(name: str, rate: float) -> float:
        matching = {pattern for pattern in freeze if fnmatch.fnmatchcase(name, pattern)}
        unmatched.difference_update(matching)
        return 0.0 if matching else rate

    depth = len(params['transformer']['attn']['norm']['scale'])
    factors: dict[tuple[str, ...], np.ndarray] = {}
    for path, leaf in flatten_dict(params).items():
        if path[0] == 'transformer':
            names = ['/'.join(('transformer', str(layer), *path[1:])) for layer in range(depth)]
            rates = [factor(n, layer_decay ** (depth - i)) for i, n in enumerate(names)]
            factors[path] = np.array(rates, np.float32).reshape(depth, *[1] * (len(leaf.shape) - 1))
        else:
            rate = 1.0 if path[0] == 'mlp_head' else layer_decay ** (depth + 1)
            factors[path] = np.array(factor('/'.join(path), rate), np.float32)
    if unmatched:
        raise InputError(
            f'optim.freeze: expected patterns of names of parameters, such as '
            f"'to_patch_embedding/*' or 'transformer/0/*', but nothing matches {min(unmatched)!r}"
        )
    return unflatten_dict(factors)


def stop_frozen(params: Any, factors: Any) -> Any:
    """Parameters that have no gradient where their factor is 0.

    What only frozen parameters would need, their part of the backward pass, is then not computed.
    """

    def stop(param: jax.Array, factor: np.ndarray) -> jax.Array:
        if factor.all():
            return param
        stopped = jax.lax.stop_gradient(param)
        return jnp.where(factor > 0, param, stopped) if factor.any() else stopped

    return jax.tree.map(stop, params, factors)


def create_optimizer(
    optim: Any, schedule: optax.Schedule, factors: Any = None
) -> optax.GradientTransformation:
    """Clips the gradients' global norm, then AdamW or SGD with momentum.

    Frozen parameters stay as they are and take no room in the optimizer's state.

    Weight decay is decoupled (Loshchilov and Hutter, https://arxiv.org/abs/1711.05101) and scaled
    by the learning rate: each step takes learning_rate * weight_decay * kernel away.

    Args:
      optim: `config.optim`.
      schedule: step → learning rate.
      factors: of the learning rate, from `learning_rate_factors`; None for 1 everywhere.

    Raises:
      InputError: where `optim.name` is unknown.
    """
    scale_by = {
        'adamw': lambda: optax.scale_by_adam(b1=optim.b1, b2=optim.b2),
        'sgd': lambda: optax.trace(decay=optim.b1),
    }
    if optim.name not in scale_by:
        raise InputError(f'optim.name: expected one of {", ".join(scale_by)}, got {optim.name!r}')
    optimizer = optax.chain(
        optax.clip_by_global_norm(optim.clip_norm) if optim.clip_norm else optax.identity(),
        scale_by[optim.name](),
        optax.add_decayed_weights(optim.weight_decay, decay_mask),
        optax.scale_by_learning_rate(schedule),
    )
    if factors is None or all((factor == 1).all() for factor in jax.tree.leaves(factors)):
        return optimizer
    scale = optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, factors))
    trained = jax.tree.map(lambda factor: bool(factor.any()), factors)
    transforms = {True: optimizer, False: optax.set_to_zero()}
    return optax.chain(optax.partition(transforms, trained), scale)
