"""Convert weights to another project's format."""

import argparse

from vit_jax.commands import options


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('weights', metavar='SRC', help=options.WEIGHTS)
    parser.add_argument('to_path', metavar='DST', help='file, overwritten if it exists; new folder')
    # Spelled out, because importing `FORMATS` would make --help slow.
    formats = ('google', 'timm', 'huggingface', 'seed')
    parser.add_argument('--to', required=True, choices=formats, help="seed: vit-pytorch's")
    options.add_overrides(parser)


def run(arguments: argparse.Namespace) -> None:
    """Writes weights in another format, with classes and preprocessing if it has room for them."""
    import jax

    from vit_jax.weights import save_weights

    weights = options.read(arguments)
    save_weights(
        arguments.to_path, weights.model, weights.variables, arguments.to, weights.description
    )
    count = sum(x.size for x in jax.tree.leaves(weights.variables))
    print(f'{arguments.to_path}: {count:,} parameters in the format {arguments.to}')
