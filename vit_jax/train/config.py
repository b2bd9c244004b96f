"""The config: a recipe or a file, and the options that override it."""

import ast
import difflib
import os
import re
import runpy
import site
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ml_collections

from vit_jax.errors import InputError


def default_config() -> ml_collections.ConfigDict:
    """A config with every option at its default, see `configs/default.py`."""
    return runpy.run_path(str(recipe_folder() / 'default.py'))['get_config']()


def load_config(
    config: str | os.PathLike[str], overrides: Mapping[str, Any] | None = None
) -> ml_collections.ConfigDict:
    """Loads a config and overrides some of its options.

    Args:
      config: a file with a function `get_config()`, or the name of a recipe if there is no such
        file.
      overrides: option → value, such as {'optim.learning_rate': 1e-3}. A string is read as the
        command line would read it.

    Raises:
      InputError: if there is no such config, it cannot be executed, or an option is wrong.
    """
    path = find_config(config)
    try:
        program = runpy.run_path(str(path))
        if 'get_config' not in program:
            raise InputError(f'{path}: expected a function get_config()')
        loaded = program['get_config']()
    except InputError:
        raise
    except (Exception, SystemExit) as error:  # a config is a program, and may have any
        raise InputError(f'{_where(error, path)}: {_reason(error)}') from None
    if not isinstance(loaded, ml_collections.ConfigDict):
        raise InputError(f'{path}: expected get_config() to return a ConfigDict, got {loaded!r}')
    _override(loaded, overrides or {})
    return loaded


def find_config(config: str | os.PathLike[str]) -> Path:
    """The file of a config, see `load_config`."""
    if (path := Path(config)).is_file():
        return path
    recipes = list_recipes()
    if str(config) in recipes:
        return recipe_folder() / f'{config}.py'
    file = path.with_suffix('.py')
    near = f'; did you mean {file}?' if file.is_file() else did_you_mean(path.stem, recipes)
    raise InputError(
        f'no config {str(config)!r}: expected a file or a recipe, one of {", ".join(recipes)}{near}'
    )


def list_recipes() -> list[str]:
    """The names of the configs that come with the package."""
    return sorted(path.stem for path in recipe_folder().glob('[!_]*.py'))


def recipe_folder() -> Path:
    """The folder configs: beside the package in a clone, inside it in a wheel."""
    package = Path(__file__).parents[1]
    folders = (folder / 'configs' for folder in (package, package.parent))
    return next(folder for folder in folders if (folder / 'default.py').is_file())


def list_options() -> dict[str, type]:
    """The type of each option, by its full name; `object` for a size, an int or a pair."""

    def types(section: ml_collections.ConfigDict, prefix: str) -> dict[str, type]:
        found: dict[str, type] = {}
        for key in section:
            if section.get_type(key) is ml_collections.ConfigDict:
                found |= types(section[key], f'{prefix}{key}.')
            else:
                found[prefix + key] = section.get_type(key)
        return found

    return types(default_config(), '')


def no_such_option(name: str) -> InputError:
    """The error for an option that does not exist; it names the nearest one that does."""
    known = list_options()
    if inside := [option for option in known if option.startswith(f'{name}.')]:
        return InputError(f'{name} is a section: expected one of its options, such as {inside[0]}')
    names = [*known, *default_config()]  # options, and sections
    return InputError(
        f'no such option: {name}{did_you_mean(name, names) or "; `vit_jax options` lists them all"}'
    )


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """'; did you mean …?' with the nearest of some dotted names; '' if none is near.

    `learning_rate` is near `optim.learning_rate`: sections count less than the last part. So are
    its initials, `lr`.
    """
    names = list(names)
    last = {option.rpartition('.')[-1]: option for option in reversed(names)}
    initials = {''.join(word[:1] for word in part.split('_')): part for part in last}
    if (short := name.rpartition('.')[-1]) in initials and len(short) > 1:
        return f'; did you mean {last[initials[short]]}?'
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.8)
    near += [last[x] for x in difflib.get_close_matches(name.rpartition('.')[-1], last, n=1)]
    return f'; did you mean {near[0]}?' if near else ''


def _override(config: ml_collections.ConfigDict, overrides: Mapping[str, Any]) -> None:
    """Sets options of a config in place."""
    kinds = list_options()
    for name, value in overrides.items():
        if name not in kinds:
            raise no_such_option(name)
        try:
            read = _parse(value, kinds[name]) if isinstance(value, str) else value
            config.update_from_flattened_dict({name: read})
        except KeyError:
            raise InputError(f'{name}: the config lacks it; start from default_config()') from None
        except (TypeError, ValueError):
            raise InputError(f'{name}: expected {NOUNS[kinds[name]]}, got {value!r}') from None


NOUNS: dict[type, str] = {
    int: 'a whole number',
    float: 'a number',
    bool: 'True or False',
    str: 'text',
    tuple: 'values such as (0.5, 0.5, 0.5)',
    object: 'a number or a pair such as (224, 160)',
}


def _parse(text: str, kind: type) -> Any:
    """An option's value as it is written on a command line.

    Raises:
      ValueError: if it is not of this kind.
    """
    if text == 'None':  # `check_config` knows which options may be unset
        return None
    if kind is str:
        return text
    if kind is bool:
        if text.lower() not in (values := {'true': True, '1': True, 'false': False, '0': False}):
            raise ValueError
        return values[text.lower()]
    if kind is int:
        if (number := float(text.replace('_', ''))).is_integer() and abs(number) < 2**53:
            return int(number)
        raise ValueError
    if kind is float:
        return float(text)
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        if kind is not tuple:
            raise ValueError from None
        value = tuple(text.split(','))  # such as patterns
    if kind is tuple and not isinstance(value, tuple):
        value = tuple(value) if isinstance(value, list) else (value,)
    return value


def _where(error: BaseException, config: Path) -> str:
    """File and line of an error in a config."""
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError):
        frames.append((error.filename or str(config), error.lineno))
    installed = str(Path(traceback.__file__).parent), *site.getsitepackages(), __file__
    own = [(file, line) for file, line in frames if not file.startswith((*installed, '<'))]
    return '{}, line {}'.format(*own[-1]) if own else str(config)


def _reason(error: BaseException) -> str:
    """What is wrong with a config, with the nearest name for an option that does not exist."""
    last = traceback.extract_tb(error.__traceback__)[-1].filename
    cause = error.args[0] if error.args and isinstance(error.args[0], KeyError) else error
    text = str(cause.args[0] if cause.args else '')
    if Path(last).name == 'config_dict.py':  # of ml_collections, whose messages are long
        if isinstance(cause, KeyError) and (found := re.match(r'(?:Key )?["\']+([\w.]+)', text)):
            return str(no_such_option(found[1]))
        wrong = r"field '(\w+)'.*\. (.*) is of .*<class '(\w+)'>.*<class '(?:.*\.)?(\w+)'>"
        if found := re.search(wrong, text):
            return '{0}: expected {3}, got {2} {1}'.format(*found.groups())
    return f'{type(error).__name__}: {text}' if text else type(error).__name__
