"""Draw what the network sees in training."""

import argparse

from vit_jax.errors import InputError


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'config',
        metavar='CONFIG',
        help='recipe or config file; --config.KEY=VALUE may follow, as for train',
    )
    parser.add_argument(
        '-o', '--output', metavar='FILE', required=True, help='picture file, such as preview.png'
    )
    parser.add_argument('--step', type=int, default=1, help='whose batch to show (default: 1)')
    parser.add_argument('--rows', type=int, default=4, help='of pictures (default: 4)')
    parser.add_argument('--columns', type=int, default=8, help='of pictures (default: 8)')


def run(arguments: argparse.Namespace) -> None:
    """Writes a contact sheet of a training batch."""
    from absl import flags, logging
    from ml_collections import config_flags

    from vit_jax.train.config import check_config, find_config, parse_flags
    from vit_jax.use.preview import preview

    logging.set_verbosity(logging.ERROR)
    values = flags.FlagValues()
    argv = ['preview', *find_config([arguments.config]), *arguments.flags]
    config_flags.DEFINE_config_file('config', flag_values=values, sys_argv=argv)
    parse_flags(values, argv)
    check_config(values.config)
    sheet = preview(values.config, arguments.step, arguments.rows, arguments.columns)
    try:
        sheet.save(arguments.output)
    except (ValueError, KeyError):  # from Pillow, for an extension that it cannot write
        raise InputError(
            f'--output: expected a picture file such as preview.png, got {arguments.output}'
        ) from None
