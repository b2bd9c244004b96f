"""vit_jax export."""

from typing import Any

import click

from vit_jax.commands import common


@click.command()
@click.argument('weights', metavar=common.WEIGHTS)
@click.option(
    '-o',
    '--output',
    'path',
    metavar='PATH',
    required=True,
    help='FILE.stablehlo or FILE.onnx.',
)
@click.option('--int8', is_flag=True, help='Of FILE.onnx: store kernels with 8 bits.')
@common.normalisation
@common.overrides
def command(
    weights: str,
    path: str,
    int8: bool,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    overrides: dict[str, Any],
) -> None:
    """Export a model, so that it runs without vit_jax.

    The file takes uint8 pictures of the model's size, in batches of any size, and gives
    probabilities; PATH.json, beside it, has the class names. FILE.stablehlo runs in any process
    with jax, on CPUs, GPUs and TPUs; FILE.onnx in ONNX Runtime.
    """
    from pathlib import Path

    from vit_jax.errors import InputError
    from vit_jax.use.export import write_stablehlo
    from vit_jax.use.onnx import write_onnx

    ending = Path(path).suffix
    if ending not in ('.stablehlo', '.onnx'):
        raise InputError(f'{path}: expected a file ending in .stablehlo or .onnx')
    if int8 and ending == '.stablehlo':
        raise InputError('--int8: only of .onnx files')
    read = common.read(weights, overrides)
    preprocessing = read.preprocessing(mean, std)
    if ending == '.stablehlo':
        write_stablehlo(read, path, preprocessing)
    else:
        write_onnx(read, path, preprocessing, int8=int8)
    height, width, channels = preprocessing.shape
    print(
        f'{path}: uint8 [b, {height}, {width}, {channels}] → '
        f'probabilities [b, {read.model.num_classes}]'
    )
