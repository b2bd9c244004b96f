"""vit_jax evaluate."""

import json
import sys
from typing import Any

import click

from vit_jax.commands import common


@click.command()
@click.argument('weights', metavar=common.WEIGHTS)
@common.data
@click.option('--split', help="Of the data; all: every split.  [default: the run's, or test]")
@click.option('--report', metavar='FOLDER', help='Write a report with pictures into a folder.')
@common.on_error
@common.max_pixels
@common.normalisation
@common.overrides
def command(
    weights: str,
    data: str | None,
    data_dir: str | None,
    split: str | None,
    report: str | None,
    on_error: str | None,
    max_pixels: int | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    overrides: dict[str, Any],
) -> None:
    """Measure accuracy, loss and calibration on a data set, and print them as JSON.

    Of multi-label data: the average precision of each class, their mean, exact matches and loss.

    A report also shows which classes are confused, how calibrated the probabilities are, and the
    most confident mistakes; its predictions.csv holds the prediction of each example.
    """
    from absl import logging

    from vit_jax.run.compilation_cache import use_compilation_cache
    from vit_jax.use.evaluate import evaluate

    logging.set_verbosity(logging.ERROR)  # silences TFDS's advice
    use_compilation_cache()
    read = common.read(weights, overrides)
    source, trained = common.trained_on(weights, data)
    options: dict[str, Any] = {
        n: trained[n] for n in ('memory_gib', 'on_error', 'max_pixels') if n in trained
    }
    given = {'on_error': on_error, 'max_pixels': max_pixels}
    options |= {name: value for name, value in given.items() if value is not None}
    split = split or (trained.get('test_split') if data is None else None) or 'test'
    data_dir = data_dir or trained.get('dir')
    evaluation = evaluate(read, source, split, data_dir=data_dir, mean=mean, std=std, **options)
    if report:
        from vit_jax.use.report import write_report

        write_report(evaluation, report)
        click.echo(f'{report}/report.md', err=True)
    indent = 2 if sys.stdout.isatty() else None  # one line for programs
    print(json.dumps({'data': source, **evaluation.summary()}, indent=indent))
