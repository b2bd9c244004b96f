"""The checks of a config before anything is built.

Options that are neither numbers nor of the augmentation are checked where they are used.
"""

import importlib.util
from typing import Any

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from vit_jax.augment.augment import check_augmentation
from vit_jax.errors import InputError
from vit_jax.model.arguments import CHOICES
from vit_jax.model.vit import ViT
from vit_jax.parallel.parallel import Jit, Pmap
from vit_jax.train.config import NOUNS, default_config, list_options, no_such_option

# The numbers that an option may be, as an interval.
RANGES = {
    'seed': '[0, 4294967296)',
    'num_steps': '[1, 2147483648)',  # int32 on the devices
    'num_epochs': '[0, inf)',
    'batch_size': '[1, 2147483648)',
    'log_every_steps': '[0, inf)',
    'eval_every_steps': '[0, inf)',
    'eval_every_epochs': '[0, inf)',
    'checkpoint_every_steps': '[0, inf)',
    'checkpoint_every_epochs': '[0, inf)',
    'checkpoint_every_minutes': '[0, inf)',
    'max_loss': '(0, inf)',
    'optim.learning_rate': '[0, 3e38)',  # float32
    'optim.warmup_steps': '[0, inf)',
    'optim.warmup_epochs': '[0, inf)',
    'optim.cooldown_steps': '[0, inf)',
    'optim.cooldown_epochs': '[0, inf)',
    'optim.weight_decay': '[0, 3e38)',
    'optim.b1': '[0, 1)',
    'optim.b2': '[0, 1)',
    'optim.clip_norm': '[0, 3e38)',
    'optim.layer_decay': '[0, 1]',
    'optim.lora_rank': '[0, 65536)',
    'optim.accumulate_steps': '[1, 2147483648)',
    'ema.decay': '[0, 1)',
    'early_stopping.patience': '[0, inf)',
    'distill.alpha': '[0, 1]',
    'distill.temperature': '(0, 1e6)',
    'parallel.data': '[-1, 2147483648)',
    'parallel.fsdp': '[-1, 2147483648)',
    'parallel.tensor': '[-1, 2147483648)',
    'distributed.num_processes': '[1, 2147483648)',
    'distributed.process_id': '[0, 2147483648)',
    'distributed.connect_seconds': '[1, 2147483648)',
    'distributed.heartbeat_seconds': '[1, 2147483648)',
    'distributed.step_seconds': '(0, 1e9)',
    'data.memory_gib': '[0, inf)',
    'data.max_pixels': '[1, 2147483648)',
    'data.repeats': '[1, 2147483648)',
    'augment.random_resized_crop': '[0, 1)',
    'augment.pad_and_crop': '[0, 65536)',
    'augment.num_ops': '[0, 101)',
    'augment.magnitude': '[0, 10]',
    'augment.erasing_prob': '[0, 1]',
    'augment.mixup_alpha': '[0, 1e6)',
    'augment.cutmix_alpha': '[0, 1e6)',
    'augment.mix_prob': '[0, 1]',
    'augment.mix_switch_prob': '[0, 1]',
    'augment.label_smoothing': '[0, 1)',
}

# May be None: then the weights that a run starts from bring them.
FROM_WEIGHTS = ('data.image_size', 'data.crop_fraction', 'data.mean', 'data.std')


def check_config(config: Any) -> None:
    """Validates the options of a config: none is missing or unknown, and each has its type.

    Raises:
      InputError: in one line that names the option.
    """
    if not isinstance(config, ConfigDict):
        raise InputError(
            f"config: expected a ConfigDict, such as vit_jax.load_config('digits'), got {config!r}"
        )
    values = flatten_dict(config.to_dict(), sep='.')
    kinds = list_options()
    if unknown := [name for name in values if name not in kinds]:
        raise no_such_option(unknown[0])
    for name, default in flatten_dict(default_config().to_dict(), sep='.').items():
        if name not in values:
            raise InputError(f'{name}: missing; expected a config made by vit_jax.default_config()')
        value, interval = values[name], RANGES.get(name)
        if value is None:
            if default is not None and name not in FROM_WEIGHTS:
                raise InputError(f'{name}: expected a value, such as {default!r}, got None')
        elif interval and not _contains(interval, value):
            raise InputError(f'{name}: expected a number in {interval}, got {value!r}')
        elif not _has_type(value, kinds[name]):
            raise InputError(f'{name}: expected {NOUNS[kinds[name]]}, got {value!r}')
    if config.profile and not _is_range(config.profile):
        raise InputError(
            f'profile: expected the first and the last step, such as (20, 25), got {config.profile}'
        )
    if config.wandb_project and importlib.util.find_spec('wandb') is None:
        raise InputError('wandb_project: expected the package wandb; pip install wandb')
    if (kernels := config.optim.lora_kernels) not in CHOICES['lora_kernels']:
        raise InputError(f"optim.lora_kernels: expected 'all' or 'attention', got {kernels!r}")
    check_augmentation(config.augment.policy, config.augment.color_jitter)


def shared_options(config: ConfigDict) -> dict[str, Any]:
    """The options that all processes of a run must share, by their full names."""
    options = flatten_dict(config.to_dict(), sep='.')
    return {n: x for n, x in options.items() if not n.startswith(('distributed.', 'data.dir'))}


def check_split(model: ViT, parallel: Jit | Pmap, accumulate_steps: int) -> None:
    """Validates that a model can be split over the devices, and their examples into parts.

    Args:
      model: to train.
      parallel: the devices.
      accumulate_steps: parts of a batch.

    Raises:
      InputError: in one line that names the option.
    """
    check_tensor('parallel.tensor', model, dict(parallel.mesh.shape).get('tensor', 1))
    if parallel.share % accumulate_steps:
        raise InputError(
            f'optim.accumulate_steps: expected a divisor of the {parallel.share} examples of each '
            f'device, got {accumulate_steps}'
        )


def check_tensor(option: str, model: ViT, tensor: int) -> None:
    """Validates that the heads and the hidden features of a model can be split over devices.

    Args:
      option: that gives their number, for the error.
      model: to split.
      tensor: devices along this axis.

    Raises:
      InputError: if they do not divide.
    """
    for name in ('heads', 'mlp_dim'):
        if (size := getattr(model, name)) % tensor:
            raise InputError(f'{option}: expected a divisor of model.{name}={size}, got {tensor}')


def _is_range(steps: tuple[Any, ...]) -> bool:
    is_pair = len(steps) == 2 and all(type(step) is int for step in steps)
    return is_pair and 1 <= steps[0] <= steps[1]


def _has_type(value: Any, kind: type) -> bool:
    if isinstance(value, bool) and kind in (int, float):
        return False
    return isinstance(value, (int, float) if kind is float else kind)


def _contains(interval: str, value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    low, high = (float(end) for end in interval[1:-1].split(', '))
    above = low < value if interval.startswith('(') else low <= value
    return above and (value < high or (interval.endswith(']') and value == high))
