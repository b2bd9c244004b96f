"""vit_jax convert."""

from typing import Any

import click

from vit_jax.commands import common


@click.command()
@click.argument('weights', metavar='RUN|WEIGHTS')
@click.argument('to_path', metavar='DST')
@click.option(
    '--to',
    'to_format',
    required=True,
    # Spelled out, because importing `FORMATS` would make --help slow.
    type=click.Choice(['google', 'timm', 'huggingface', 'seed']),
    help="Format; seed is vit-pytorch's.",
)
@click.option('--float16', 'half', is_flag=True, help='Round to float16, in half the space.')
@common.overrides
def command(
    weights: str, to_path: str, to_format: str, half: bool, overrides: dict[str, Any]
) -> None:
    """Convert weights to another project's format.

    They come with class names and preprocessing if the format has room for them. DST is a file,
    overwritten if it exists, or a new folder.
    """
    import jax

    from vit_jax.weights import save_weights

    read = common.read(weights, overrides)
    dtype = 'float16' if half else 'float32'
    save_weights(to_path, read.model, read.variables, to_format, read.description, dtype=dtype)
    count = sum(x.size for x in jax.tree.leaves(read.variables))
    print(f'{to_path}: {count:,} parameters in the format {to_format}')
