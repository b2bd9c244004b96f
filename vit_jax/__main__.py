"""python -m vit_jax COMMAND: use what was trained."""

import argparse
import csv
import json
import sys

from vit_jax.errors import InputError


def main(argv: list[str] | None = None) -> int:
    """Runs one command; wrong input ends in one line and exit status 2."""
    parser = argparse.ArgumentParser(prog='python -m vit_jax', description=__doc__)
    commands = parser.add_subparsers(required=True, metavar='COMMAND')

    command = commands.add_parser('predict', help='classify pictures')
    command.set_defaults(function=predict)
    command.add_argument('run', metavar='RUN', help='run directory')
    command.add_argument('images', metavar='IMAGE', nargs='+', help='picture file')
    command.add_argument('--top-k', type=int, default=5, help='classes a picture (default: 5)')
    command.add_argument('--step', default='newest', help='checkpoint: newest, best or a number')
    command.add_argument('--format', choices=('table', 'json', 'csv'), default='table')

    command = commands.add_parser('summary', help='what a run is made of')
    command.set_defaults(function=summary)
    command.add_argument('run', metavar='RUN', help='run directory')

    arguments = parser.parse_args(argv)
    try:
        arguments.function(arguments)
    except InputError as error:
        print('vit_jax:', ' '.join(str(error).split()), file=sys.stderr)
        return 2
    return 0


def predict(arguments: argparse.Namespace) -> None:
    """Prints the likeliest classes of each picture."""
    from vit_jax.compilation_cache import use_compilation_cache
    from vit_jax.predict import Predictor

    use_compilation_cache()
    step = int(arguments.step) if arguments.step.isdecimal() else arguments.step
    results = Predictor(arguments.run, step).top_k(arguments.images, arguments.top_k)
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


def summary(arguments: argparse.Namespace) -> None:
    """Prints a run's model: arguments, and a table of its parameters."""
    from flax.traverse_util import flatten_dict

    from vit_jax.flops import flops_per_image
    from vit_jax.weights.run import load_run

    model, variables, description = load_run(arguments.run)
    print_table([(name, str(value)) for name, value in description['model'].items()])
    print(f'classes: {", ".join(description["class_names"])}')
    print(f'one image: {flops_per_image(model) / 1e9:,.3f} GFLOP of matrix products\n')
    params = flatten_dict(variables['params'], sep='/')
    rows = [(name, ' x '.join(map(str, x.shape)), f'{x.size:,}') for name, x in params.items()]
    total = sum(x.size for x in params.values())
    print_table([*rows, ('all parameters', '', f'{total:,}')])


def print_table(rows: list[tuple[str, ...]]) -> None:
    """Prints columns, each as wide as it has to be; the last is flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for *first, last in rows:
        cells = [cell.ljust(width) for cell, width in zip(first, widths, strict=False)]
        print('  '.join([*cells, last.rjust(widths[-1])]))


if __name__ == '__main__':
    sys.exit(main())
