"""vit_jax probe."""

import json
import sys
from functools import partial
from typing import Any

import click

from vit_jax.commands import common
from vit_jax.errors import InputError


@click.command()
@click.argument('weights', metavar=common.WEIGHTS)
@common.data
@click.option('--train-split', help="To learn from.  [default: the run's, or train]")
@click.option('--split', help="To test on.  [default: the run's, or test]")
@click.option(
    '--method',
    type=click.Choice(['knn', 'linear']),
    default='knn',
    show_default=True,
    help='The nearest neighbours vote, or a linear classifier is fitted.',
)
@click.option('-o', '--output', metavar='FILE', help='Write the model with the linear classifier.')
@click.option('--features', metavar='FOLDER', help='Keep the features there, to use them again.')
@common.on_error
@common.max_pixels
@common.normalisation
@common.overrides
def command(
    weights: str,
    data: str | None,
    data_dir: str | None,
    train_split: str | None,
    split: str | None,
    method: str,
    output: str | None,
    features: str | None,
    on_error: str | None,
    max_pixels: int | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    overrides: dict[str, Any],
) -> None:
    """Measure how well the features of a frozen model tell the classes of a data set apart.

    Prints the accuracy on the test split as JSON. The file that --output names is the same model
    with the fitted classifier: a .safetensors or .npz file, or a folder of Hugging Face.
    """
    from absl import logging

    from vit_jax.data.picture import MAX_PIXELS
    from vit_jax.use.probe_source import probe_source

    logging.set_verbosity(logging.ERROR)  # silences TFDS's advice
    if output and method != 'linear':
        raise InputError('--output: expected --method linear, which fits a classifier to write')
    common.check_exists(weights)
    source, trained = common.trained_on(weights, data)
    splits = trained if data is None else {}
    predictor = common.open_predictor(weights, mean, std, overrides)
    result = probe_source(
        predictor,
        source,
        method,
        train_split=train_split or splits.get('train_split') or 'train',
        test_split=split or splits.get('test_split') or 'test',
        data_dir=data_dir or trained.get('dir'),
        features=features,
        output=output,
        on_error=on_error or trained.get('on_error') or 'raise',
        max_pixels=max_pixels or trained.get('max_pixels') or MAX_PIXELS,
        report=partial(click.echo, err=True),
    )
    indent = 2 if sys.stdout.isatty() else None  # one line for programs
    print(json.dumps(result, indent=indent))
