"""python -m vit_jax COMMAND: use what was trained, and weights from elsewhere."""

import argparse
import os
import sys
from typing import Never

from vit_jax.commands import convert, evaluate, predict, prepare, preview, summary
from vit_jax.errors import InputError
from vit_jax.run.output import silence_libraries


class Parser(argparse.ArgumentParser):
    """Reports a wrong command line in one line, without the usage."""

    def error(self, message: str) -> Never:
        self.exit(2, f'{self.prog}: {message}; see --help\n')


def main(argv: list[str] | None = None) -> int:
    """Runs a command; wrong input ends with one line and exit status 2."""
    parser = Parser(prog='python -m vit_jax', description=__doc__)
    commands = parser.add_subparsers(required=True, metavar='COMMAND')
    for module in (predict, evaluate, convert, summary, prepare, preview):
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


if __name__ == '__main__':
    silence_libraries()
    sys.exit(main())
