"""A config from the command line, and a check of its numbers before anything is built.

What is no number is checked where it is used.
"""

import math
from pathlib import Path
from typing import Any

from absl import flags
from flax.traverse_util import flatten_dict
from ml_collections import config_flags

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
    'augment.mixup_alpha': (0, 1e6),
    'augment.cutmix_alpha': (0, 1e6),
    'augment.label_smoothing': (0, 1),
}

# Largest allowed, from 0.
LARGEST = {
    'augment.magnitude': 10,
    'augment.erasing_prob': 1,
    'augment.mix_prob': 1,
    'augment.mix_switch_prob': 1,
}


def parse_flags(values: flags.FlagValues, argv: list[str]) -> Path:
    """Parses a command line, of whose flags `config` is ml_collections' `--config=FILE`.

    Args:
      values: the flags, to be set.
      argv: the program, then its arguments.

    Returns:
      The config's file.

    Raises:
      InputError: where something in it is wrong, in one line.
    """
    try:
        extra = values(argv)[1:]
        config_file = Path(config_flags.get_config_filename(values['config']))
        if not config_file.is_file():
            raise FileNotFoundError(f'no such file: {config_file}')
    except OSError as error:  # the last line of ml_collections' names the file
        reason = str(error).splitlines()[-1]
        raise InputError(f'--config: expected a config file, but: {reason}') from None
    except (AttributeError, KeyError) as error:  # the nearest name is in the message
        message = str(error.args[0]).replace('\\n', ' ').replace('\n', '; ')
        message = message.translate({ord(c): None for c in "\\'"})
        raise InputError(f'no such option: {message}') from None
    except (flags.Error, TypeError) as error:
        raise InputError(str(error)) from None
    if extra:
        raise InputError(f'expected only --flags, got {" ".join(extra)}')
    return config_file


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
    for name, largest in LARGEST.items():
        if not 0 <= values[name] <= largest:
            raise InputError(f'{name}: expected 0 to {largest}, got {values[name]}')
