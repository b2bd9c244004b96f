"""vit_jax prepare."""

import click


@click.command()
@click.argument('source', metavar='tfds:NAME')
@click.option('--data-dir', metavar='FOLDER', help='Where TFDS keeps data sets.')
@click.option('--manual-dir', metavar='FOLDER', help='Files that you have downloaded by hand.')
def command(source: str, data_dir: str | None, manual_dir: str | None) -> None:
    """Download a data set, or convert it to the format that is read in random order."""
    from absl import logging

    from vit_jax.data.sources import open_source

    logging.set_verbosity(logging.ERROR)  # silences TFDS's advice
    opened = open_source(source, data_dir)
    print(f'{opened.name}: {opened.prepare(manual_dir)}')
