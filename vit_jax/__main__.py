"""vit_jax COMMAND: train, use what was trained, and weights from elsewhere."""

import argparse
import os
import sys
from typing import Never

from vit_jax.commands import train
from vit_jax.errors import InputError
from vit_jax.run.output import silence_libraries


class Parser(argparse.ArgumentParser):
    """Reports a wrong command line in one line, without the usage."""

    def error(self, message: str) -> Never:
        self.exit(2, f'{self.prog}: {message}; see --help\n')


class Version(argparse.Action):
    """Prints the versions and devices, for a bug report."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        import jax

        from vit_jax import __version__

        devices = ', '.join(sorted({device.device_kind for device in jax.devices()}))
        print(f'vit_jax {__version__}, jax {jax.__version__}, {jax.device_count()} x {devices}')
        parser.exit()


def main(argv: list[str] | None = None) -> int:
    """Runs a command; wrong input ends with one line and exit status 2."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ['train']:  # reads its own command line: config files declare its options
        return train.main(argv[1:], 'vit_jax train')
    from vit_jax.commands import convert, evaluate, plot, predict, prepare, preview, summary

    parser = Parser(prog='vit_jax', description=__doc__)
    parser.add_argument('--version', action=Version, nargs=0, help='of vit_jax and jax; devices')
    commands = parser.add_subparsers(required=True, metavar='COMMAND')
    commands.add_parser('train', help=str(train.__doc__).splitlines()[0])
    for module in (predict, evaluate, plot, convert, summary, prepare, preview):
        name, text = module.__name__.rpartition('.')[-1], module.__doc__
        command = commands.add_parser(name, help=text, description=text)
        module.add_options(command)
        command.set_defaults(run=module.run)

    arguments, flags = parser.parse_known_args(argv)
    if flags and arguments.run is not preview.run:
        parser.error(f'unrecognized arguments: {" ".join(flags)}')
    arguments.flags = flags
    try:
        arguments.run(arguments)
    except BrokenPipeError:  # whoever reads our output has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (InputError, OSError) as error:
        print('vit_jax:', ' '.join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('vit_jax: interrupted; run the same command again', file=sys.stderr)
        return 130
    return 0


def run_and_exit() -> Never:
    """The program `vit_jax`."""
    if sys.argv[1:2] == ['train']:
        train.run_and_exit(sys.argv[2:], 'vit_jax train')
    silence_libraries()
    sys.exit(main())


if __name__ == '__main__':
    run_and_exit()
