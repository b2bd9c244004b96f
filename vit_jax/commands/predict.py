"""vit_jax predict."""

import csv
import json
import sys
from collections.abc import Iterator
from typing import Any

import click

from vit_jax.commands import common


@click.command()
@click.argument('weights', metavar=common.WEIGHTS)
@click.argument('paths', metavar='PATH...', nargs=-1, required=True)
@click.option('--top-k', default=5, show_default=True, help='Classes for each picture.')
@click.option(
    '--format',
    'layout',
    type=click.Choice(['table', 'json', 'csv']),
    default='table',
    show_default=True,
    help='How to print them.',
)
@common.on_error
@common.max_pixels
@common.normalisation
@common.overrides
def command(
    weights: str,
    paths: tuple[str, ...],
    top_k: int,
    layout: str,
    on_error: str | None,
    max_pixels: int | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    overrides: dict[str, Any],
) -> None:
    """Classify pictures, with a trained model or a file that vit_jax export wrote.

    PATH is a picture, a folder of pictures with all folders in it, a quoted pattern such as
    'photos/**/*.jpg', or - for the paths on standard input, one a line.
    """
    from tqdm import tqdm

    from vit_jax.data.picture import MAX_PIXELS
    from vit_jax.errors import InputError
    from vit_jax.run.compilation_cache import use_compilation_cache
    from vit_jax.use.exported import ExportedPredictor, is_export
    from vit_jax.use.pictures import find_pictures

    common.check_exists(weights)
    pictures = find_pictures(paths)
    max_pixels = max_pixels or MAX_PIXELS
    predictor: Predictor
    if is_export(weights):
        use_compilation_cache()
        predictor = ExportedPredictor(weights, max_pixels=max_pixels)
    else:
        predictor = common.open_predictor(weights, mean, std, overrides, max_pixels=max_pixels)
    total = skipped = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal total, skipped
        # A bar only where the answers go elsewhere.
        hidden = sys.stdout.isatty() or not sys.stderr.isatty()
        results = predictor.stream(pictures, top_k, on_error or 'raise')
        for image, found in tqdm(results, unit=' pictures', disable=hidden):
            total += 1
            if isinstance(found, InputError):
                skipped += 1
                click.echo(f'skipped: {found}', err=True)
                continue
            for name, probability in found:
                yield {'image': image, 'class': name, 'probability': probability}

    if layout == 'json':
        print('[', end='')
        try:
            for number, row in enumerate(rows()):
                print(',\n' if number else '\n', json.dumps(row), sep='', end='')
        finally:  # what was answered before an error can be read
            print('\n]')
    elif layout == 'csv':
        writer = csv.DictWriter(sys.stdout, fieldnames=['image', 'class', 'probability'])
        writer.writeheader()
        writer.writerows(rows())
    else:
        width = max(map(len, predictor.class_names), default=0)
        for row in rows():
            print(f'{row["probability"]:7.2%}  {row["class"]:{width}}  {row["image"]}')
    if skipped:
        click.echo(f'skipped: {skipped:,} of {total:,} pictures', err=True)
