"""Checks the numbers of a config before anything is built; the rest is checked where it is used."""

import math
from typing import Any

from flax.traverse_util import flatten_dict

from vit_jax.errors import InputError

# Smallest allowed, and what every value has to stay below.
RANGES = {
    'seed': (0, 2**32),
    'num_steps': (1, math.inf),
    'num_epochs': (0, math.inf),
    'batch_size': (1, math.inf),
    'log_every_steps': (0, math.inf),
    'eval_every_steps': (0, math.inf),
    'checkpoint_every_steps': (0, math.inf),
    'optim.learning_rate': (0, math.inf),
    'optim.warmup_steps': (0, math.inf),
    'optim.weight_decay': (0, math.inf),
    'optim.b1': (0, 1),
    'optim.b2': (0, 1),
    'optim.clip_norm': (0, math.inf),
    'optim.layer_decay': (0, math.inf),
    'data.memory_gib': (0, math.inf),
    'data.repeats': (1, math.inf),
    'augment.random_resized_crop': (0, 1),
    'augment.pad_and_crop': (0, math.inf),
    'augment.num_ops': (0, math.inf),
    'augment.magnitude': (0, 10.1),
    'augment.mixup_alpha': (0, math.inf),
    'augment.cutmix_alpha': (0, math.inf),
    'augment.label_smoothing': (0, 1),
}

PROBABILITIES = ('augment.erasing_prob', 'augment.mix_prob', 'augment.mix_switch_prob')


def check_config(config: Any) -> None:
    """Holds a config's numbers against their ranges.

    Raises:
      InputError: where one is outside its range, or not a number.
    """
    values = flatten_dict(config.to_dict(), sep='.')
    for name, (low, high) in RANGES.items():
        value = values[name]
        if value is not None and not low <= value < high:
            limits = f'at least {low}' + (f' and below {high}' if high < math.inf else '')
            raise InputError(f'{name}: expected a finite number, {limits}, got {value}')
    for name in PROBABILITIES:
        if not 0 <= values[name] <= 1:
            raise InputError(f'{name}: expected a probability, 0 to 1, got {values[name]}')
