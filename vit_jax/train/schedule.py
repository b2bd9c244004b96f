"""The learning rate of each step: a linear warm-up, then one of several decays."""

import jax.numpy as jnp
import optax

from vit_jax.errors import InputError

# The schedules whose decay does not depend on the length of the run, so that they end with a
# cool-down.
WITH_COOLDOWN = ('rsqrt', 'constant')


def learning_rate_schedule(
    name: str, learning_rate: float, *, warmup_steps: int, num_steps: int, cooldown_steps: int = 0
) -> optax.Schedule:
    """Linear warm-up from 0 to the peak p, a decay, and linearly to 0 over the cool-down.

    After t steps, of which w are the warm-up, in a run of n:
      'cosine'    p (1 + cos(π (t - w) / (n - w))) / 2 (https://arxiv.org/abs/1608.03983);
      'linear'    p (n - t) / (n - w);
      'rsqrt'     p √(w / t), as "Scaling Vision Transformers" has it
                  (https://arxiv.org/abs/2106.04560), with a time scale of 10,000 steps where there
                  is no warm-up: p / √(1 + t / 10,000);
      'constant'  p. With a cool-down this is WSD, warm-up, stable, decay
                  (https://arxiv.org/abs/2404.06395).
    The cool-down multiplies the last two by (n - t) / cooldown_steps, at most 1.

    Args:
      name: of the decay.
      learning_rate: the peak.
      warmup_steps, num_steps: lengths of the warm-up and of the run.
      cooldown_steps: at the end of the run; 0 for none.

    Returns:
      steps done → learning rate of the next step.

    Raises:
      InputError: if there is no such schedule.
    """
    rest = num_steps - warmup_steps
    scale = warmup_steps or 10_000  # of time, in steps
    decays = {
        'cosine': optax.cosine_decay_schedule(learning_rate, rest),
        'linear': optax.linear_schedule(learning_rate, 0.0, rest),
        # The step counts from the end of the warm-up, and is negative before.
        'rsqrt': lambda step: learning_rate / jnp.sqrt(1 + jnp.maximum(step, 0) / scale),
        'constant': optax.constant_schedule(learning_rate),
    }
    if name not in decays:
        raise InputError(f'optim.schedule: expected one of {", ".join(decays)}, got {name!r}')
    warmup = optax.linear_schedule(0.0, learning_rate, warmup_steps)
    schedule = optax.join_schedules([warmup, decays[name]], [warmup_steps])
    if not cooldown_steps:
        return schedule
    return lambda step: schedule(step) * jnp.clip((num_steps - step) / cooldown_steps, 0, 1)
