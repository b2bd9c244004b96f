"""Options that several commands share, as decorators of a command's function."""

import functools
import re
import typing
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from vit_jax.errors import InputError
from vit_jax.model.arguments import CHOICES, argument_names
from vit_jax.model.extras import Extras
from vit_jax.model.vit import ViT

if TYPE_CHECKING:
    from PIL.Image import Image

    from vit_jax.use.predict import Predictor
    from vit_jax.weights.reading import Weights

WEIGHTS = 'RUN|WEIGHTS'  # a run directory, a weight file or a Hugging Face folder

Function = Callable[..., Any]


class Size(click.ParamType):
    """Pixels, as '384' or 'HEIGHTxWIDTH'."""

    name = 'size'

    def convert(self, value: Any, param: Any, context: Any) -> Any:
        try:
            sides = tuple(int(side) for side in value.split('x'))
        except ValueError:
            sides = ()
        if not 1 <= len(sides) <= 2:
            self.fail(f'expected a number or HEIGHTxWIDTH, got {value!r}', param, context)
        return sides if len(sides) > 1 else sides[0]


class Numbers(click.ParamType):
    """Numbers, as '0.5' or '0.485,0.456,0.406'."""

    name = 'numbers'

    def convert(self, value: Any, param: Any, context: Any) -> Any:
        try:
            return tuple(float(number) for number in value.split(','))
        except ValueError:
            self.fail(f'expected numbers such as 0.5,0.5,0.5, got {value!r}', param, context)


POSITIVE = click.IntRange(1, 2**31 - 1)
on_error = click.option(
    '--on-error',
    type=click.Choice(['raise', 'skip']),
    help='What to do about a picture that cannot be read: end there, or leave it out.',
)
max_pixels = click.option(
    '--max-pixels',
    type=POSITIVE,
    metavar='NUMBER',
    help='Refuse larger pictures.  [default: 67,108,864]',
)


data_dir = click.option(
    '--data-dir', metavar='FOLDER', help="Where TFDS keeps data.  [default: the run's]"
)


def data(function: Function) -> Function:
    """Adds --data and --data-dir, see `trained_on`."""
    text = "Data: tfds:NAME, folder:PATH, csv:PATH or jsonl:PATH.  [default: the run's]"
    return click.option('--data', metavar='SOURCE', help=text)(data_dir(function))


def trained_on(weights: str, source: str | None) -> tuple[str, dict[str, Any]]:
    """A data source, by default that of a run, and the run's options of its data.

    Raises:
      InputError: if no source is given and the weights are not a run.
    """
    from vit_jax.run.directory import run_options
    from vit_jax.run.storage import open_path

    options = run_options(open_path(weights), 'data')
    if source is None and 'source' not in options:
        raise InputError(f'{weights} is not a run: expected --data SOURCE')
    return source or options['source'], options


def normalisation(function: Function) -> Function:
    """Adds --mean and --std, which a weight file may lack."""
    for name in ('std', 'mean'):
        text = (
            f'{name} of the pixels in [0, 1], one for all channels or one for each, as 0.5,0.5,0.5.'
        )
        option = click.option(f'--{name}', type=Numbers(), help=text.capitalize(), hidden=True)
        function = option(function)
    return function


def overrides(function: Function) -> Function:
    """Adds --step, --help-all, and hidden options: how weights are read, each argument of the ViT.

    The function gets those that were given as one dict, `overrides`: keyword arguments of
    `vit_jax.weights.reading.read_weights`.
    """
    types = typing.get_type_hints(ViT)
    known: dict[Any, Any] = {int | tuple[int, int]: Size(), float | None: float}
    texts = _explanations(ViT) | _explanations(Extras)
    options: dict[str, dict[str, Any]] = {
        'step': dict(
            default='newest', show_default=True, help='Of a run: newest, best or a number.'
        ),
        'ema': dict(
            type=bool,
            default=True,
            help='Of a run: the moving average of its parameters, if it has one.',
        ),
        'resize': dict(
            type=click.Choice(['bilinear', 'bicubic', 'bicubic_no_antialias']),
            help="How to resize position embeddings.  [default: as the weights' own code]",
        ),
        'grid': dict(type=Size(), help='Rows x columns of position embeddings, if not square.'),
    }
    for name in argument_names(ViT):
        options[name] = {'help': texts[name], 'type': known.get(types[name], types[name])}
        if name in CHOICES:
            options[name]['type'] = click.Choice(CHOICES[name])

    @functools.wraps(function)
    def command(**values: Any) -> Any:
        given = {name: values.pop(name) for name in options}
        given = {name: value for name, value in given.items() if value is not None}
        return function(overrides=given, **values)

    for name, option in reversed(options.items()):
        flag = f'--{name.replace("_", "-")}'
        if option.get('type') is bool:
            flag += f'/--no-{flag[2:]}'
        command = click.option(
            flag, name, default=option.pop('default', None), hidden=name != 'step', **option
        )(command)
    return _help_all(command)


def _explanations(documented: type) -> dict[str, str]:
    """What the docstring of a class says of each of its arguments."""
    arguments = str(documented.__doc__).partition('Args:')[2].partition('\n\n')[0]
    found = re.findall(r'^ {6}(\w+): (.*(?:\n {8}.*)*)', arguments, re.MULTILINE)
    return {name: text[0].upper() + ' '.join(text.split())[1:] for name, text in found}


def _help_all(function: Function) -> Function:
    """Adds --help-all, which shows the hidden options too."""

    def show(context: click.Context, _: Any, wanted: bool) -> None:
        if wanted:
            for parameter in context.command.params:
                if isinstance(parameter, click.Option):
                    parameter.hidden = False
            click.echo(context.get_help())
            context.exit()

    text = 'Show all options: what a weight file lacks, or what to override.'
    option = click.option(
        '--help-all', is_flag=True, is_eager=True, expose_value=False, callback=show, help=text
    )
    return option(function)


def read(weights: str, overrides: dict[str, Any]) -> 'Weights':
    """Reads the weights that a command was given and prints the notes on them."""
    from vit_jax.weights.reading import read_weights

    read = read_weights(weights, **overrides)
    print_notes(weights, read.notes)
    return read


def check_exists(weights: str) -> None:
    """Raises InputError if there is neither a run nor a file of that name."""
    from vit_jax.run.storage import open_path

    if not open_path(weights).exists():
        raise InputError(f'{weights}: no such file or run directory')


def open_predictor(
    weights: str,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    overrides: dict[str, Any],
    **options: Any,
) -> 'Predictor':
    """The predictor of a command's weights and options; prints the notes on the weights."""
    from vit_jax.run.compilation_cache import use_compilation_cache
    from vit_jax.use.predict import Predictor

    check_exists(weights)
    use_compilation_cache()
    predictor = Predictor(weights, mean=mean, std=std, **options, **overrides)
    print_notes(weights, predictor.notes)
    return predictor


def save_pictures(pictures: 'Sequence[Image]', output: str) -> None:
    """Saves a picture, or several as an animation."""
    first, *others = pictures
    animation: Any = {'save_all': True, 'append_images': others, 'duration': 700, 'loop': 0}
    try:
        first.save(output, **(animation if others else {}))
    except (ValueError, KeyError):  # from Pillow, for an extension that it cannot write
        raise InputError(
            f'--output: expected a picture file such as picture.png, got {output}'
        ) from None


def print_notes(weights: str, notes: list[str]) -> None:
    """Prints notes on weights to standard error."""
    for note in notes:
        click.echo(f'{weights}: {note}', err=True)


def print_table(rows: list[tuple[str, ...]]) -> None:
    """Prints columns as wide as their widest cell; the last one is right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for *first, last in rows:
        cells = [cell.ljust(width) for cell, width in zip(first, widths, strict=False)]
        print('  '.join([*cells, last.rjust(widths[-1])]))
