"""Options that several commands share."""

import argparse
import sys
import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vit_jax.model.arguments import CHOICES, argument_names
from vit_jax.model.vit import ViT

if TYPE_CHECKING:
    from vit_jax.weights.reading import Weights

WEIGHTS = 'run directory, weight file or Hugging Face folder'


def size(text: str) -> int | tuple[int, ...]:
    """Pixels, as '384' or 'HEIGHTxWIDTH'."""
    sides = tuple(int(side) for side in text.split('x'))
    return sides if len(sides) > 1 else sides[0]


def positive(text: str) -> int:
    """A whole number of at least 1 that fits int32."""
    value = int(text)
    if not 1 <= value < 2**31:
        raise ValueError
    return value


# How to parse the arguments of a ViT that have no simple type.
PARSERS: dict[Any, Callable[[str], Any]] = {int | tuple[int, int]: size, float | None: float}


def add_normalisation(parser: argparse.ArgumentParser) -> None:
    """Options for the normalisation that a weight file may lack."""
    for name in ('mean', 'std'):
        text = 'of the pixels in [0, 1], one for all channels or one for each'
        parser.add_argument(f'--{name}', type=float, nargs='+', help=text)


def normalisation(arguments: argparse.Namespace) -> dict[str, Any]:
    """'mean' and 'std' from the command line; None if they were not given."""
    return {name: tuple(x) if (x := vars(arguments)[name]) else None for name in ('mean', 'std')}


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Options for how weights are read, and one for every argument of the ViT."""
    group = parser.add_argument_group(
        'weights',
        'What the file lacks, or what you want to override; see vit_jax.load_weights.',
    )
    group.add_argument('--step', default='newest', help='of a run: newest, best or a number')
    text = 'how to resize position embeddings: bilinear or bicubic (default: bilinear)'
    group.add_argument('--resize', default='bilinear', help=text)
    text = 'ROWSxCOLUMNS of the position embeddings, if they are not square'
    group.add_argument('--grid', type=size, help=text)
    types = typing.get_type_hints(ViT)
    for name in argument_names(ViT):
        parse = PARSERS.get(types[name], types[name])
        kind: dict[str, Any] = {'type': parse, 'metavar': parse.__name__.upper()}
        if types[name] is bool:
            kind = {'action': argparse.BooleanOptionalAction}
        elif name in CHOICES:
            kind = {'choices': CHOICES[name]}
        option = f'--{name.replace("_", "-")}'
        group.add_argument(option, dest=name, default=argparse.SUPPRESS, **kind)


def overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    """The ViT's arguments among those of the command line."""
    return {name: x for name, x in vars(arguments).items() if name in argument_names(ViT)}


def reading(arguments: argparse.Namespace) -> dict[str, Any]:
    """The keyword arguments of `read_weights` and `Predictor` from the command line."""
    options = {name: getattr(arguments, name) for name in ('step', 'resize', 'grid')}
    return options | overrides(arguments)


def read(arguments: argparse.Namespace) -> 'Weights':
    """Reads the weights that a command was given and prints the notes on them."""
    from vit_jax.weights.reading import read_weights

    weights = read_weights(arguments.weights, **reading(arguments))
    print_notes(arguments, weights.notes)
    return weights


def print_notes(arguments: argparse.Namespace, notes: list[str]) -> None:
    """Prints notes on the weights to standard error."""
    for note in notes:
        print(f'{arguments.weights}: {note}', file=sys.stderr)


def print_table(rows: list[tuple[str, ...]]) -> None:
    """Prints columns as wide as their widest cell; the last one is right-aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for *first, last in rows:
        cells = [cell.ljust(width) for cell, width in zip(first, widths, strict=False)]
        print('  '.join([*cells, last.rjust(widths[-1])]))
