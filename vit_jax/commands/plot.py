"""vit_jax plot."""

import click


@click.command()
@click.argument('runs', metavar='RUN...', nargs=-1, required=True)
@click.option('-o', '--output', metavar='FILE', required=True, help='Such as curves.png.')
def command(runs: tuple[str, ...], output: str) -> None:
    """Draw the curves of runs: loss, accuracy, learning rate, images/s."""
    from vit_jax.use.plot import plot

    for note in plot(list(runs), output):
        click.echo(f'{note}; left out', err=True)
