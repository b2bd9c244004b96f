"""Compute loss and accuracy on a data set."""

import argparse
import json

from vit_jax.commands import options
from vit_jax.errors import InputError


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('weights', metavar='RUN|WEIGHTS', help=options.WEIGHTS)
    parser.add_argument(
        '--data', metavar='SOURCE', help="tfds:NAME or folder:PATH (default: the run's)"
    )
    parser.add_argument(
        '--data-dir', metavar='FOLDER', help="where TFDS keeps data sets (default: the run's)"
    )
    parser.add_argument('--split', help="of the data (default: the run's test split)")
    text = "what to do about an unusable example (default: the run's, or raise)"
    parser.add_argument('--on-error', choices=('raise', 'skip'), help=text)
    text = "of a picture; a larger one is unusable (default: the run's, or 67,108,864)"
    parser.add_argument('--max-pixels', type=options.positive, help=text)
    options.add_normalisation(parser)
    options.add_overrides(parser)


def run(arguments: argparse.Namespace) -> None:
    """Prints loss and accuracy on a split as JSON."""
    from absl import logging

    from vit_jax.data.picture import MAX_PIXELS
    from vit_jax.run.compilation_cache import use_compilation_cache
    from vit_jax.run.directory import run_options
    from vit_jax.run.storage import open_path
    from vit_jax.use.evaluate import evaluate_weights

    logging.set_verbosity(logging.ERROR)  # silences TFDS's advice
    use_compilation_cache()
    weights = options.read(arguments)
    data = run_options(open_path(arguments.weights), 'data')
    source = data.get('source') if arguments.data is None else arguments.data
    split = data.get('test_split', 'test') if arguments.split is None else arguments.split
    if source is None:
        raise InputError(f'{arguments.weights} is not a run: expected --data SOURCE')
    metrics = evaluate_weights(
        weights,
        source,
        split,
        data_dir=arguments.data_dir or data.get('dir'),
        on_error=arguments.on_error or data.get('on_error', 'raise'),
        max_pixels=arguments.max_pixels or data.get('max_pixels', MAX_PIXELS),
        **options.normalisation(arguments),
    )
    print(json.dumps({'data': source, **metrics}))
