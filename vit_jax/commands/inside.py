"""vit_jax inside."""

from typing import Any

import click

from vit_jax.commands import common


@click.command()
@click.argument('weights', metavar=common.WEIGHTS)
@click.argument('picture', metavar='[PICTURE]', required=False)
@click.option('-o', '--output', metavar='FILE', required=True, help='Such as inside.png.')
@common.normalisation
@common.overrides
def command(
    weights: str,
    picture: str | None,
    output: str,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    overrides: dict[str, Any],
) -> None:
    """Draw what a model has learned.

    The filters of its patches and how alike its positions are; with a picture, what its patches
    have become after the last layer.
    """
    from vit_jax.use.inside import draw_inside

    predictor = common.open_predictor(weights, mean, std, overrides)
    common.save_pictures([draw_inside(predictor, picture)], output)
