"""The config: its defaults, its command line, and the checks before anything is built.

Options that are not plain numbers are checked where they are used.
"""

import runpy
import site
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_collections
from absl import flags
from flax.traverse_util import flatten_dict
from ml_collections import config_flags

from vit_jax.augment.augment import check_augmentation
from vit_jax.errors import InputError

# The numbers that an option may be, as an interval.
RANGES = {
    'seed': '[0, 4294967296)',
    'num_steps': '[1, 2147483648)',  # int32 on the devices
    'num_epochs': '[0, inf)',
    'batch_size': '[1, 2147483648)',
    'log_every_steps': '[0, inf)',
    'eval_every_steps': '[0, inf)',
    'checkpoint_every_steps': '[0, inf)',
    'checkpoint_every_minutes': '[0, inf)',
    'max_loss': '(0, inf)',
    'optim.learning_rate': '[0, 3e38)',  # float32
    'optim.warmup_steps': '[0, inf)',
    'optim.weight_decay': '[0, 3e38)',
    'optim.b1': '[0, 1)',
    'optim.b2': '[0, 1)',
    'optim.clip_norm': '[0, 3e38)',
    'optim.layer_decay': '[0, 1]',
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


def default_config() -> ml_collections.ConfigDict:
    """A config with every option at its default, see `configs/default.py`."""
    return runpy.run_path(str(_recipes() / 'default.py'))['get_config']()


def list_recipes() -> list[str]:
    """The names of the configs that come with the package."""
    return sorted(path.stem for path in _recipes().glob('[!_]*.py'))


def find_config(arguments: Sequence[str]) -> list[str]:
    """A command line `CONFIG …` or `… --config=CONFIG …` as `--config=FILE …`.

    CONFIG is a file, or the name of a recipe where no file has that name.
    """
    found = list(arguments)
    if found and not found[0].startswith('-'):
        found[0] = f'--config={found[0]}'
    for name in list_recipes():
        if not Path(name).exists():
            file = f'--config={_recipes() / name}.py'
            found = [file if argument == f'--config={name}' else argument for argument in found]
    return found


def _recipes() -> Path:
    """The folder configs: beside the package in a clone, inside it in a wheel."""
    package = Path(__file__).parents[1]
    folders = (folder / 'configs' for folder in (package, package.parent))
    return next(folder for folder in folders if (folder / 'default.py').is_file())


def parse_flags(values: flags.FlagValues, argv: list[str]) -> Path:
    """Parses a command line with ml_collections' flag `--config=FILE`.

    Args:
      values: the flags to set, with one named 'config'.
      argv: the program, then its arguments.

    Returns:
      The path of the config file.

    Raises:
      InputError: in one line, if anything in it is wrong.
    """
    try:
        extra = values(argv)[1:]
        config_file = Path(config_flags.get_config_filename(values['config']))
        if not config_file.is_file():
            recipes = ', '.join(list_recipes())
            raise FileNotFoundError(f'no such file: {config_file}; recipes: {recipes}')
    except OSError as error:  # the last line of ml_collections' message names the file
        reason = str(error).splitlines()[-1]
        raise InputError(f'--config: expected a config file, but: {reason}') from None
    except (AttributeError, KeyError) as error:  # the message has the nearest name
        message = str(error.args[0]).replace('\\n', ' ').replace('\n', '; ')
        message = message.translate({ord(c): None for c in "\\'"})
        raise InputError(f'no such option: {message}') from None
    except flags.Error as error:  # of a config's own TypeError, the last line of a traceback
        lines = str(error).splitlines()
        raise InputError(lines[0] if len(lines) == 1 else f'--config: {lines[-1]}') from None
    except Exception as error:  # a config is a program, and may have any
        raise InputError(f'--config: {_where(error)}{type(error).__name__}: {error}') from None
    if not isinstance(config := values['config'].value, ml_collections.ConfigDict):
        raise InputError(f'--config: expected a ConfigDict of get_config(), got {config!r}')
    if extra:
        raise InputError(f'expected only --flags, got {" ".join(extra)}')
    return config_file


def _where(error: Exception) -> str:
    """File and line of an error in a config; '' if it is not in one."""
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        frames.append((error.filename or '', error.lineno))
    installed = str(Path(traceback.__file__).parent), *site.getsitepackages()
    own = [(file, line) for file, line in frames if not file.startswith((*installed, '<'))]
    file, line = own[-1] if own else ('', None)
    return f'{file}, line {line}: ' if file and file != __file__ else ''


def check_config(config: Any) -> None:
    """Validates the numbers of a config, and its augmentation.

    Raises:
      InputError: if an option is missing, out of its range, not a number or an unknown choice.
    """
    values = flatten_dict(config.to_dict(), sep='.')
    for name, default in flatten_dict(default_config().to_dict(), sep='.').items():
        if values.get(name) is None and default is not None and name not in FROM_WEIGHTS:
            raise InputError(f'{name}: expected a value, such as {default!r}, got None')
    for name, interval in RANGES.items():
        if (value := values[name]) is not None and not _contains(interval, value):
            raise InputError(f'{name}: expected a number in {interval}, got {value!r}')
    check_augmentation(config.augment.policy, config.augment.color_jitter)


def _contains(interval: str, value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    low, high = (float(end) for end in interval[1:-1].split(', '))
    return low <= value < high or (interval.endswith(']') and value == high)
