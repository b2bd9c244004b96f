"""Draw the curves of runs: loss, accuracy, learning rate, images/s."""

import argparse


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('runs', metavar='RUN', nargs='+', help='run directories')
    parser.add_argument(
        '-o', '--output', metavar='FILE', required=True, help='picture file, such as curves.png'
    )


def run(arguments: argparse.Namespace) -> None:
    """Writes the picture."""
    from vit_jax.use.plot import plot

    plot(arguments.runs, arguments.output)
