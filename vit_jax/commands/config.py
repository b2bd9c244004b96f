"""CONFIG and --config.KEY=VALUE, for the commands that take a config."""

from collections.abc import Callable
from typing import Any

import click
from click.shell_completion import CompletionItem

from vit_jax.train.config import list_options, list_recipes, load_config

# Lets click pass on the options that it does not know.
SETTINGS = {'ignore_unknown_options': True}


def config(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds CONFIG and its options; the function gets them, unread, as `arguments`."""
    metavar = 'CONFIG [--config.KEY=VALUE]...'
    argument = click.argument(
        'arguments', nargs=-1, type=click.UNPROCESSED, metavar=metavar, shell_complete=_complete
    )
    return argument(function)


def read_config(arguments: tuple[str, ...]) -> tuple[str, Any]:
    """What a command line says of the config.

    Args:
      arguments: CONFIG or --config=CONFIG, and --config.KEY=VALUE, in any order. A space may stand
        for the '=', and --config.KEY alone for True.

    Returns:
      CONFIG, and the config with its options overridden.

    Raises:
      InputError: if there is no such config or option.
      click.UsageError: if the command line is wrong otherwise.
    """
    names, overrides, rest = [], {}, list(arguments)
    while rest:
        flag, equals, value = rest.pop(0).partition('=')
        if not flag.startswith('-'):
            names.append(flag + equals + value)
            continue
        if flag != '--config' and not flag.startswith('--config.'):
            known = [
                option
                for parameter in click.get_current_context().command.params
                for option in parameter.opts
            ]
            known += ['--config', *(f'--config.{name}' for name in list_options())]
            raise click.NoSuchOption(flag, possibilities=known)
        if flag == '--config' and not equals and not rest:
            raise click.BadOptionUsage(flag, "Option '--config' requires an argument.")
        if not equals:
            value = 'True' if not rest or rest[0].startswith('--') else rest.pop(0)
        if flag == '--config':
            names.append(value)
        else:
            overrides[flag.removeprefix('--config.')] = value
    if len(names) != 1:
        recipes = ', '.join(list_recipes())
        got = ' and '.join(names) or 'none'
        raise click.UsageError(f'Expected one config, {recipes} or a file of your own, got {got}.')
    return names[0], load_config(names[0], overrides)


def _complete(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    names = [name for name in list_recipes() if name.startswith(incomplete)]
    return [*map(CompletionItem, names), CompletionItem(incomplete, type='file')]
