"""vit_jax attention."""

from typing import Any

import click

from vit_jax.commands import common


@click.command()
@click.argument('weights', metavar=common.WEIGHTS)
@click.argument('picture', metavar='PICTURE')
@click.option('-o', '--output', metavar='FILE', required=True, help='Such as out.png or out.gif.')
@click.option('--layer', type=common.POSITIVE, help='Whose heads to draw.  [default: the last]')
@common.normalisation
@common.overrides
def command(
    weights: str,
    picture: str,
    output: str,
    layer: int | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    overrides: dict[str, Any],
) -> None:
    """Draw where a model looks.

    A picture file shows the rollout and the heads of one layer; a .gif, of all layers in turn.
    """
    from vit_jax.errors import InputError
    from vit_jax.use.attention_sheet import draw_attention

    predictor = common.open_predictor(weights, mean, std, overrides)
    depth = predictor.model.depth
    if layer is not None and layer > depth:
        raise InputError(f'--layer: expected 1 to {depth}, got {layer}')
    layers = range(depth) if output.lower().endswith('.gif') else [depth - 1]
    if layer is not None:
        layers = [layer - 1]
    common.save_pictures(draw_attention(predictor, picture, layers), output)
