"""The exponential moving average of the parameters."""

from typing import Any

import jax.numpy as jnp
import optax


def update_ema(ema: Any, params: Any, step: Any, decay: float) -> Any:
    """The average after a step: decay · ema + (1 - decay) · params.

    During the first steps the decay is at most (1 + step) / (10 + step), so that the average soon
    forgets the initial parameters, as TensorFlow's `ExponentialMovingAverage` does it.

    Args:
      ema: the average before the step.
      params: after the step.
      step: number of steps done before.
      decay: of the average, [0, 1).

    Reference: https://www.tensorflow.org/api_docs/python/tf/train/ExponentialMovingAverage
    """
    return optax.incremental_update(params, ema, 1 - jnp.minimum(decay, (1 + step) / (10 + step)))
