"""The program vit_jax: its commands, and how they end."""

import importlib
import os
import sys
import traceback
from typing import Never

import click
from click.shell_completion import shell_complete

from vit_jax import __version__
from vit_jax.errors import InputError
from vit_jax.run import output, signals

COMMANDS = (
    'train',
    'predict',
    'serve',
    'evaluate',
    'features',
    'probe',
    'attention',
    'inside',
    'plot',
    'convert',
    'export',
    'summary',
    'options',
    'prepare',
    'preview',
)


class _Commands(click.Group):
    """Imports a command's module when it is asked for."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name in COMMANDS:
            return find_command(name)
        if context.resilient_parsing or name.startswith('-'):
            return None
        raise click.exceptions.NoSuchCommand(name, possibilities=COMMANDS, ctx=context)


def find_command(name: str) -> click.Command:
    """The command of a name in COMMANDS."""
    command = importlib.import_module(f'vit_jax.commands.{name}').command
    command.name = name
    return command


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        import jax

        devices = ', '.join(sorted({device.device_kind for device in jax.devices()}))
        print(f'vit_jax {__version__}, jax {jax.__version__}, {jax.device_count()} x {devices}')
        context.exit()


@click.command(cls=_Commands, context_settings={'max_content_width': 100})
@click.option(
    '--version',
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help='Show the versions of vit_jax and jax, and the devices.',
)
def program() -> None:
    """The Vision Transformer in JAX: train it, trust the run, use what you trained.

    vit_jax COMMAND --help explains a command.
    """


def main(
    arguments: list[str] | None = None,
    name: str = 'vit_jax',
    command: click.Command = program,
) -> int:
    """Runs one command line; whatever is wrong with it ends in one line.

    Args:
      arguments: of the command; None for this process's.
      name: of the program, for messages.
      command: to run.

    Returns:
      The exit status; `vit_jax train --help` explains it.
    """

    def fail(reason: object, status: int) -> int:
        print(f'{name}:', ' '.join(str(reason).split()), file=sys.stderr)
        return status

    arguments = sys.argv[1:] if arguments is None else arguments
    path = ' '.join([name, *(x for x in arguments[:1] if x in COMMANDS)])
    try:
        context = command.make_context(name, arguments)
        with context:
            command.invoke(context)
    except click.exceptions.Exit as end:  # after --help
        return end.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.UsageError as error:
        message = error.format_message()
        path = error.ctx.command_path if error.ctx else path
        return fail(f'{message}{"" if message[-1] in ".?)" else "."} See {path} --help.', 2)
    except InputError as error:
        return fail(error, 2)
    except BrokenPipeError:  # whoever reads our output has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        is_plain = error.filename and error.strerror
        return fail(f'{error.filename}: {error.strerror}' if is_plain else error, 1)
    except FloatingPointError as error:
        return fail(error, 1)
    except signals.Interrupted as error:
        return fail(f'{error}: the run is saved; run the same command to resume', signals.STATUS)
    except KeyboardInterrupt:
        return fail('interrupted; run the same command again', 130)
    return 0


def run_and_exit(name: str = 'vit_jax', command: str | None = None) -> Never:
    """Runs this process's command line as its only task.

    Args:
      name: of the program, for messages.
      command: in COMMANDS; None if the first argument names it.
    """
    if 'train' in (command, *sys.argv[1:2]):  # a run is saved before it ends, whoever reads along
        output.outlive_readers()
        signals.end_on_signals(name)
    output.silence_libraries()
    if instruction := os.environ.get('_VIT_JAX_COMPLETE'):  # from a shell
        sys.exit(shell_complete(program, {}, name, '_VIT_JAX_COMPLETE', instruction))
    status = 1  # of an error that nobody foresaw
    try:
        status = main(None, name, find_command(command) if command else program)
    except Exception:
        traceback.print_exc()
    signals.ignore()
    if status and 'jax' in sys.modules:
        from vit_jax.parallel.distributed import leave

        leave(status)
    sys.exit(status)


if __name__ == '__main__':
    run_and_exit()
