"""Download a data set, or convert it to the format that is read in random order."""

import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('source', metavar='SOURCE', help='tfds:NAME')
    parser.add_argument('--data-dir', metavar='FOLDER', help='where TFDS keeps data sets')
    parser.add_argument('--manual-dir', metavar='FOLDER', help='files downloaded by hand')


def run(arguments: argparse.Namespace) -> None:
    """Prepares a data set once, and prints where it is."""
    from absl import logging

    from vit_jax.data.sources import open_source

    logging.set_verbosity(logging.ERROR)  # silences TFDS's advice
    source = open_source(arguments.source, arguments.data_dir)
    print(f'{source.name}: {source.prepare(arguments.manual_dir)}')
