"""python -m vit_jax COMMAND: use what was trained, and weights from elsewhere."""

import argparse
import csv
import json
import math
import os
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never

import jax

from vit_jax.arguments import CHOICES, argument_names
from vit_jax.errors import InputError
from vit_jax.model import ViT

if TYPE_CHECKING:
    from vit_jax.weights import Weights

SOURCE = 'run directory, weight file or Hugging Face folder'


class Parser(argparse.ArgumentParser):
    """Tells a wrong command line in one line, without the usage before it."""

    def error(self, message: str) -> Never:
        self.exit(2, f'{self.prog}: {message}; --help lists what there is\n')


def main(argv: list[str] | None = None) -> int:
    """Runs one command; wrong input ends in one line and exit status 2."""
    parser = Parser(prog='python -m vit_jax', description=__doc__)
    commands = parser.add_subparsers(required=True, metavar='COMMAND')

    command = commands.add_parser('predict', help='classify pictures')
    command.set_defaults(function=predict)
    command.add_argument('weights', metavar='RUN|WEIGHTS', help=SOURCE)
    command.add_argument('images', metavar='IMAGE', nargs='+', help='picture file')
    command.add_argument('--top-k', type=int, default=5, help='classes a picture (default: 5)')
    command.add_argument('--format', choices=('table', 'json', 'csv'), default='table')
    add_normalisation(command)
    add_overrides(command)

    command = commands.add_parser('evaluate', help='loss and accuracy on a data set')
    command.set_defaults(function=evaluate)
    command.add_argument('weights', metavar='RUN|WEIGHTS', help=SOURCE)
    command.add_argument(
        '--data', metavar='SOURCE', help="tfds:NAME or folder:PATH (default: the run's)"
    )
    command.add_argument('--data-dir', metavar='FOLDER', help="of TFDS (default: the run's)")
    command.add_argument('--split', help="of the data (default: the run's test split)")
    text = "at an example that cannot be used (default: the run's, or raise)"
    command.add_argument('--on-error', choices=('raise', 'skip'), help=text)
    add_normalisation(command)
    add_overrides(command)

    command = commands.add_parser('convert', help="weights into another project's format")
    command.set_defaults(function=convert)
    command.add_argument('weights', metavar='SRC', help=SOURCE)
    command.add_argument('to_path', metavar='DST', help='file, replaced if there; or new folder')
    formats = ('google', 'timm', 'huggingface', 'seed')
    command.add_argument('--to', required=True, choices=formats, help="seed: vit-pytorch's")
    add_overrides(command)

    command = commands.add_parser('summary', help='what a model is made of and what it costs')
    command.set_defaults(function=summary)
    command.add_argument(
        'weights', metavar='VARIANT|RUN|WEIGHTS', help=f'such as B/16, or a {SOURCE}'
    )
    command.add_argument('--batch-size', type=int, help='memory of training with so many images')
    add_overrides(command)

    command = commands.add_parser('prepare', help='bring a data set into the form that is read')
    command.set_defaults(function=prepare)
    command.add_argument('source', metavar='SOURCE', help='tfds:NAME')
    command.add_argument('--data-dir', metavar='FOLDER', help='of TFDS')
    command.add_argument('--manual-dir', metavar='FOLDER', help='files downloaded by hand')

    command = commands.add_parser('preview', help='a picture of what the network sees in training')
    command.set_defaults(function=preview)
    command.add_argument(
        'config',
        metavar='CONFIG',
        help='config file; --config.KEY=VALUE may follow, as in train.py',
    )
    command.add_argument('-o', '--output', metavar='FILE', required=True, help='.png or the like')
    command.add_argument('--step', type=int, default=1, help='whose batch (default: 1)')
    command.add_argument('--rows', type=int, default=4, help='of pictures (default: 4)')
    command.add_argument('--columns', type=int, default=8, help='of pictures (default: 8)')

    arguments, flags = parser.parse_known_args(argv)
    if flags and arguments.function is not preview:
        parser.error(f'unrecognized arguments: {" ".join(flags)}')
    arguments.flags = flags
    try:
        arguments.function(arguments)
    except BrokenPipeError:  # whoever read our output has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (InputError, OSError) as error:
        print('vit_jax:', ' '.join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('vit_jax: interrupted; the same command begins or goes on again', file=sys.stderr)
        return 130
    return 0


def add_normalisation(command: argparse.ArgumentParser) -> None:
    """Options for what a weight file may not tell of the pixels."""
    for name in ('mean', 'std'):
        text = 'of the pixels in [0, 1], one for all channels or one each'
        command.add_argument(f'--{name}', type=float, nargs='+', help=text)


def normalisation(arguments: argparse.Namespace) -> dict[str, Any]:
    """'mean' and 'std' of the command line, None where they are not in it."""
    return {name: tuple(x) if (x := vars(arguments)[name]) else None for name in ('mean', 'std')}


def add_overrides(command: argparse.ArgumentParser) -> None:
    """Options for how weights are read, and for every argument of the ViT."""
    group = command.add_argument_group(
        'weights', 'What they do not tell, or what is to be different; see vit_jax.load_weights.'
    )
    group.add_argument('--step', default='newest', help='of a run: newest, best or a number')
    group.add_argument('--resize', default='bilinear', help='position embeddings: or bicubic')
    group.add_argument('--grid', type=size, help='ROWSxCOLS of them, if no square')
    kinds = typing.get_type_hints(ViT)
    for name in argument_names(ViT):
        parse = KINDS.get(kinds[name], kinds[name])
        kind: dict[str, Any] = {'type': parse, 'metavar': parse.__name__.upper()}
        if kinds[name] is bool:
            kind = {'action': argparse.BooleanOptionalAction}
        elif name in CHOICES:
            kind = {'choices': CHOICES[name]}
        option = f'--{name.replace("_", "-")}'
        group.add_argument(option, dest=name, default=argparse.SUPPRESS, **kind)


def size(text: str) -> int | tuple[int, ...]:
    """Pixels, '384', or 'HEIGHTxWIDTH'."""
    sides = tuple(int(side) for side in text.split('x'))
    return sides if len(sides) > 1 else sides[0]


# argparse's types of the arguments that are not of one simple kind.
KINDS: dict[Any, Callable[[str], Any]] = {int | tuple[int, int]: size, float | None: float}


def overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    """The ViT's arguments among those of the command line."""
    return {name: x for name, x in vars(arguments).items() if name in argument_names(ViT)}


def reading(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `read_weights` and `Predictor` take from the command line."""
    how = {name: getattr(arguments, name) for name in ('step', 'resize', 'grid')}
    return how | overrides(arguments)


def read(arguments: argparse.Namespace) -> 'Weights':
    """Reads the weights that a command was given; what was done to them goes to stderr."""
    from vit_jax.weights import read_weights

    weights = read_weights(arguments.weights, **reading(arguments))
    print_notes(arguments, weights.notes)
    return weights


def print_notes(arguments: argparse.Namespace, notes: list[str]) -> None:
    for note in notes:
        print(f'{arguments.weights}: {note}', file=sys.stderr)


def predict(arguments: argparse.Namespace) -> None:
    """Prints the likeliest classes of each picture."""
    from vit_jax.compilation_cache import use_compilation_cache
    from vit_jax.predict import Predictor

    use_compilation_cache()
    predictor = Predictor(arguments.weights, **normalisation(arguments), **reading(arguments))
    print_notes(arguments, predictor.notes)
    results = predictor.top_k(arguments.images, arguments.top_k)
    rows = [
        {'image': image, 'class': name, 'probability': probability}
        for image, classes in zip(arguments.images, results, strict=True)
        for name, probability in classes
    ]
    if arguments.format == 'json':
        print(json.dumps(rows, indent=2))
    elif arguments.format == 'csv':
        writer = csv.DictWriter(sys.stdout, fieldnames=['image', 'class', 'probability'])
        writer.writeheader()
        writer.writerows(rows)
    else:
        print_table([(row['image'], row['class'], f'{row["probability"]:.2%}') for row in rows])


def evaluate(arguments: argparse.Namespace) -> None:
    """Prints loss and accuracy on a split as JSON."""
    from absl import logging

    from vit_jax.compilation_cache import use_compilation_cache
    from vit_jax.evaluate import evaluate_weights, trained_on

    logging.set_verbosity(logging.ERROR)  # TFDS has advice
    use_compilation_cache()
    weights = read(arguments)
    data = trained_on(Path(arguments.weights))
    source = arguments.data or data.get('source')
    if source is None:
        raise InputError(f'{arguments.weights} is no run; expected --data SOURCE to evaluate on')
    metrics = evaluate_weights(
        weights,
        source,
        arguments.split or data.get('test_split', 'test'),
        data_dir=arguments.data_dir or data.get('dir'),
        on_error=arguments.on_error or data.get('on_error', 'raise'),
        **normalisation(arguments),
    )
    print(json.dumps({'data': source, **metrics}))


def convert(arguments: argparse.Namespace) -> None:
    """Writes weights in another format, with classes and preprocessing where it has room."""
    from vit_jax.weights import save_weights

    weights = read(arguments)
    save_weights(
        arguments.to_path, weights.model, weights.variables, arguments.to, weights.description
    )


def prepare(arguments: argparse.Namespace) -> None:
    """Downloads or converts a data set, once."""
    from absl import logging

    from vit_jax.data import open_source

    logging.set_verbosity(logging.ERROR)  # TFDS has advice
    source = open_source(arguments.source, arguments.data_dir)
    print(f'{source.name}: {source.prepare(arguments.manual_dir)}')


def preview(arguments: argparse.Namespace) -> None:
    """Writes a contact sheet of a config's training batch."""
    from absl import flags, logging
    from ml_collections import config_flags

    from vit_jax.config import check_config, parse_flags
    from vit_jax.preview import preview as draw

    logging.set_verbosity(logging.ERROR)
    values = flags.FlagValues()
    argv = ['preview', f'--config={arguments.config}', *arguments.flags]
    config_flags.DEFINE_config_file('config', flag_values=values, sys_argv=argv)
    parse_flags(values, argv)
    check_config(values.config)
    sheet = draw(values.config, arguments.step, arguments.rows, arguments.columns)
    try:
        sheet.save(arguments.output)
    except (ValueError, KeyError):  # Pillow's, of an ending that it cannot write
        raise InputError(
            f'--output: expected a picture file such as preview.png, got {arguments.output}'
        ) from None


def summary(arguments: argparse.Namespace) -> None:
    """Prints a model's arguments, a table of its parameters, its FLOPs and its memory."""
    from vit_jax.costs import flops_per_image, training_memory
    from vit_jax.variants import create_model
    from vit_jax.weights.accounting import parameter_shapes

    if arguments.batch_size is not None and arguments.batch_size < 1:
        raise InputError(f'--batch-size: expected at least 1, got {arguments.batch_size}')
    if Path(arguments.weights).exists():
        weights = read(arguments)
        model, class_names = weights.model, weights.description['class_names']
    else:
        model, class_names = create_model(arguments.weights, **overrides(arguments)), None
    print_table([(name, str(getattr(model, name))) for name in argument_names(ViT)])
    if class_names:
        print(f'classes: {", ".join(class_names)}')
    print(f'one image: {flops_per_image(model) / 1e9:,.3f} GFLOP of matrix products')
    if arguments.batch_size:
        state, step = training_memory(model, arguments.batch_size)
        print(
            f'training on {arguments.batch_size} images, AdamW, by the plan of XLA for '
            f'{jax.devices()[0].device_kind}: {(state + step) / 2**30:,.2f} GiB, of which '
            f'{state / 2**30:,.2f} parameters and moments, {step / 2**30:,.2f} the step'
        )
    shapes = parameter_shapes(model)
    rows = [(n, ' x '.join(map(str, s)), f'{math.prod(s):,}') for n, s in shapes.items()]
    total = sum(map(math.prod, shapes.values()))
    print()
    print_table([*rows, ('all parameters', '', f'{total:,}')])


def print_table(rows: list[tuple[str, ...]]) -> None:
    """Prints columns, each as wide as it has to be; the last is flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for *first, last in rows:
        cells = [cell.ljust(width) for cell, width in zip(first, widths, strict=False)]
        print('  '.join([*cells, last.rjust(widths[-1])]))


if __name__ == '__main__':
    sys.exit(main())
