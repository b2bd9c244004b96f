"""vit_jax predict."""

import csv
import json
import sys
from typing import Any

import click

from vit_jax.commands import common


@click.command()
@click.argument('weights', metavar=common.WEIGHTS)
@click.argument('images', metavar='IMAGE...', nargs=-1, required=True)
@click.option('--top-k', default=5, show_default=True, help='Classes for each picture.')
@click.option(
    '--format',
    'layout',
    type=click.Choice(['table', 'json', 'csv']),
    default='table',
    show_default=True,
    help='How to print them.',
)
@common.max_pixels
@common.normalisation
@common.overrides
@common.help_all
def command(
    weights: str,
    images: tuple[str, ...],
    top_k: int,
    layout: str,
    max_pixels: int | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    overrides: dict[str, Any],
) -> None:
    """Classify pictures."""
    from vit_jax.data.picture import MAX_PIXELS
    from vit_jax.run.compilation_cache import use_compilation_cache
    from vit_jax.use.predict import Predictor

    use_compilation_cache()
    predictor = Predictor(
        weights, max_pixels=max_pixels or MAX_PIXELS, mean=mean, std=std, **overrides
    )
    common.print_notes(weights, predictor.notes)
    results = predictor.top_k(images, top_k)
    rows = [
        {'image': image, 'class': name, 'probability': probability}
        for image, classes in zip(images, results, strict=True)
        for name, probability in classes
    ]
    if layout == 'json':
        print(json.dumps(rows, indent=2))
    elif layout == 'csv':
        writer = csv.DictWriter(sys.stdout, fieldnames=['image', 'class', 'probability'])
        writer.writeheader()
        writer.writerows(rows)
    else:
        common.print_table(
            [(row['image'], row['class'], f'{row["probability"]:.2%}') for row in rows]
        )
