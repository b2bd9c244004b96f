"""The learning-rate schedule, the weight-decay mask and the optax chain."""

from typing import Any

import jax
import optax

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


def create_optimizer(optim: Any, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Clips the gradients' global norm, then AdamW or SGD with momentum.

    Weight decay is decoupled (Loshchilov and Hutter, https://arxiv.org/abs/1711.05101) and scaled
    by the learning rate: each step takes learning_rate * weight_decay * kernel away.

    Args:
      optim: `config.optim`.
      schedule: step → learning rate.

    Raises:
      InputError: where `optim.name` is unknown.
    """
    scale_by = {
        'adamw': lambda: optax.scale_by_adam(b1=optim.b1, b2=optim.b2),
        'sgd': lambda: optax.trace(decay=optim.b1),
    }
    if optim.name not in scale_by:
        raise InputError(f'optim.name: expected one of {", ".join(scale_by)}, got {optim.name!r}')
    return optax.chain(
        optax.clip_by_global_norm(optim.clip_norm) if optim.clip_norm else optax.identity(),
        scale_by[optim.name](),
        optax.add_decayed_weights(optim.weight_decay, decay_mask),
        optax.scale_by_learning_rate(schedule),
    )
