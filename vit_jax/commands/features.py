"""vit_jax features."""

from functools import partial
from typing import Any

import click

from vit_jax.commands import common
from vit_jax.errors import InputError


@click.command()
@click.argument('weights', metavar=common.WEIGHTS)
@click.argument('paths', metavar='SOURCE|PATH...', nargs=-1, required=True)
@click.option('-o', '--output', metavar='FILE', required=True, help='To write: features.npz.')
@click.option('--split', help='Of a SOURCE.  [default: all]')
@common.data_dir
@common.on_error
@common.max_pixels
@common.normalisation
@common.overrides
def command(
    weights: str,
    paths: tuple[str, ...],
    output: str,
    split: str | None,
    data_dir: str | None,
    on_error: str | None,
    max_pixels: int | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    overrides: dict[str, Any],
) -> None:
    """Write what the classifier reads of each picture, as arrays for NumPy.

    SOURCE is tfds:NAME, folder:PATH, csv:PATH or jsonl:PATH, whose examples have labels. PATH is
    a picture, a folder, a quoted pattern or -, as for vit_jax predict. If it is interrupted, the
    same command resumes.
    """
    from absl import logging

    from vit_jax.data.picture import MAX_PIXELS
    from vit_jax.data.sources import is_source
    from vit_jax.use.features import (
        check_output,
        extract_features,
        list_examples,
        list_pictures,
    )
    from vit_jax.use.pictures import find_pictures

    logging.set_verbosity(logging.ERROR)  # silences TFDS's advice
    common.check_exists(weights)
    check_output(output)
    from_source = any(map(is_source, paths))
    if from_source and len(paths) > 1:
        raise InputError(f'expected one SOURCE or pictures, got {", ".join(paths[:3])}')
    if not from_source and (split or data_dir):
        raise InputError('--split and --data-dir: expected a SOURCE, tfds:NAME or folder:PATH')
    found = [] if from_source else find_pictures(paths)
    predictor = common.open_predictor(weights, mean, std, overrides)
    if from_source:
        source, trained = common.trained_on(weights, paths[0])
        folder = data_dir or trained.get('dir')
        pictures = list_examples(predictor, source, split or 'all', folder)
    else:
        pictures = list_pictures(found)
    report = partial(click.echo, err=True)
    options: Any = {'on_error': on_error or 'raise', 'max_pixels': max_pixels or MAX_PIXELS}
    features = extract_features(predictor, pictures, output, report=report, **options)
    count, width = features.features.shape
    skipped = len(pictures.records) - count
    print(
        f'{output}: {count:,} pictures, {width:,} features each'
        + (f', {len(features.class_names)} classes' if features.class_names else '')
        + (f'; {skipped:,} skipped' if skipped else '')
    )
