"""How long a run is, and what it says of itself when it starts."""

import math
from typing import Any

import jax

from vit_jax.data.order import TrainOrder
from vit_jax.errors import InputError
from vit_jax.model.flops import flops_per_image
from vit_jax.model.shapes import parameter_shapes
from vit_jax.model.vit import ViT


def count_steps(config: Any, num_examples: int) -> int:
    """The number of steps of a run: `num_steps` if set, else enough for `num_epochs`.

    Raises:
      InputError: if it is less than one, or 2³¹ or more.
    """
    if config.num_steps is not None:
        num_steps = config.num_steps
    else:
        num_steps = config.num_epochs * num_examples * config.data.repeats / config.batch_size
    if not 0 < num_steps < 2**31:
        raise InputError(
            f'num_steps or num_epochs: expected from 1 to 2,147,483,647 steps, got {num_steps:g}'
        )
    return math.ceil(num_steps)


def run_summary(model: ViT, order: TrainOrder, num_steps: int, run_directory: Any) -> str:
    """Two lines: the length of the run; its model, its devices and where it writes."""
    parameters = sum(map(math.prod, parameter_shapes(model).values()))
    return (
        f'{num_steps:,} steps of {order.batch_size:,} pictures: {order.epochs(num_steps):,.1f} '
        f'epochs of {1 / order.epochs(1):,.1f} steps\n'
        f'{parameters:,} parameters, {flops_per_image(model) / 1e9:,.3g} GFLOP for a picture; '
        f'{jax.device_count()} x {jax.devices()[0].device_kind}; writing to {run_directory}'
    )
