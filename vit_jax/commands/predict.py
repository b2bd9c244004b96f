"""Classify pictures."""

import argparse
import csv
import json
import sys

from vit_jax.commands import options


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('weights', metavar='RUN|WEIGHTS', help=options.WEIGHTS)
    parser.add_argument('images', metavar='IMAGE', nargs='+', help='picture file')
    parser.add_argument('--top-k', type=int, default=5, help='classes per picture (default: 5)')
    parser.add_argument('--format', choices=('table', 'json', 'csv'), default='table')
    text = 'of a picture; a larger one is refused (default: 67,108,864)'
    parser.add_argument('--max-pixels', type=options.positive, help=text)
    options.add_normalisation(parser)
    options.add_overrides(parser)


def run(arguments: argparse.Namespace) -> None:
    """Prints the most likely classes of each picture."""
    from vit_jax.data.picture import MAX_PIXELS
    from vit_jax.run.compilation_cache import use_compilation_cache
    from vit_jax.use.predict import Predictor

    use_compilation_cache()
    predictor = Predictor(
        arguments.weights,
        max_pixels=arguments.max_pixels or MAX_PIXELS,
        **options.normalisation(arguments),
        **options.reading(arguments),
    )
    options.print_notes(arguments, predictor.notes)
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
        options.print_table(
            [(row['image'], row['class'], f'{row["probability"]:.2%}') for row in rows]
        )
