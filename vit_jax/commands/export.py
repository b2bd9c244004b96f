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
    help='FILE.stablehlo, FILE.onnx or a folder.',
)
@click.option('--int8', is_flag=True, help='Of .onnx and folders: store kernels with 8 bits.')
@click.option(
    '--runtime',
    metavar='FOLDER',
    help='Of folders: where onnxruntime-web has its files.  [default: npm gets them]',
)
@common.normalisation
@common.overrides
def command(
    weights: str,
    path: str,
    int8: bool,
    runtime: str | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    overrides: dict[str, Any],
) -> None:
    """Export a model, so that it runs without vit_jax.

    A file takes uint8 pictures of the model's size, in batches of any size, and gives
    probabilities; PATH.json, beside it, has the class names. FILE.stablehlo runs in any process
    with jax, on CPUs, GPUs and TPUs; FILE.onnx in ONNX Runtime. A folder is a web page for any
    static host, which runs the model in the visitor's browser.
    """
    from pathlib import Path

    from vit_jax.errors import InputError
    from vit_jax.use.export import write_stablehlo
    from vit_jax.use.onnx import write_onnx
    from vit_jax.use.site import write_site

    is_folder = path.endswith('/') or Path(path).is_dir()
    ending = '' if is_folder else Path(path).suffix
    if ending not in ('.stablehlo', '.onnx', ''):
        raise InputError(f'{path}: expected a file ending in .stablehlo or .onnx, or a folder')
    if int8 and ending == '.stablehlo':
        raise InputError('--int8: only of .onnx files and folders')
    if runtime and ending:
        raise InputError('--runtime: only of folders')
    read = common.read(weights, overrides)
    preprocessing = read.preprocessing(mean, std)
    if ending == '.stablehlo':
        write_stablehlo(read, path, preprocessing)
    elif ending == '.onnx':
        write_onnx(read, path, preprocessing, int8=int8)
    else:
        write_site(read, path, preprocessing, int8=int8, runtime=runtime)
        print(f'{path}: a static page; to try it: python -m http.server --directory {path}')
        return
    height, width, channels = preprocessing.shape
    print(
        f'{path}: uint8 [b, {height}, {width}, {channels}] → '
        f'probabilities [b, {read.model.num_classes}]'
    )
