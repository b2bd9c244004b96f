"""vit_jax preview."""

import click

from vit_jax.commands.common import save_pictures
from vit_jax.commands.config import SETTINGS, config, read_config


@click.command(context_settings=SETTINGS)
@config
@click.option('-o', '--output', metavar='FILE', required=True, help='Such as preview.png.')
@click.option('--step', default=1, show_default=True, help='The step whose batch to show.')
@click.option('--rows', default=4, show_default=True, help='Rows of pictures.')
@click.option('--columns', default=8, show_default=True, help='Columns of pictures.')
def command(arguments: tuple[str, ...], output: str, step: int, rows: int, columns: int) -> None:
    """Draw what the network sees in training.

    CONFIG and its options are those of `vit_jax train`.
    """
    _, options = read_config(arguments)
    from absl import logging

    from vit_jax.train.checks import check_config
    from vit_jax.use.preview import preview

    logging.set_verbosity(logging.ERROR)
    check_config(options)
    save_pictures([preview(options, step, rows, columns)], output)
