"""Train a Vision Transformer.

  {program} CONFIG [--workdir=runs/NAME] [--config.KEY=VALUE …]

CONFIG is a recipe ({recipes}) or a file of your own;
--config=CONFIG means the same. The same command on the same workdir resumes an interrupted run.
configs/default.py lists every KEY.

Exit status: 0 finished; 1 the run diverged or a file cannot be written; 2 wrong input; 75 a signal
(SIGTERM, SIGINT, SIGHUP) interrupted the run, which is saved: run the same command again.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Never

from vit_jax.errors import InputError
from vit_jax.run import output, signals


def run_and_exit(arguments: Sequence[str], program: str) -> Never:
    """Runs the command as this process's only task, which ends when it ends."""
    output.outlive_readers()
    signals.end_on_signals(program)  # before the slow imports
    output.silence_libraries()
    status = main(arguments, program)
    signals.ignore()
    sys.exit(status)


def main(arguments: Sequence[str], program: str) -> int:
    """Runs one command line.

    Args:
      arguments: what follows the program's name.
      program: how the user calls it, for messages.

    Returns:
      The exit status.
    """

    def fail(reason: object, status: int) -> int:
        print(f'{program}:', ' '.join(str(reason).split()), file=sys.stderr)
        return status

    from absl import flags, logging
    from ml_collections import config_flags

    from vit_jax.train.config import find_config, list_recipes, parse_flags

    values = flags.FlagValues()
    argv = [program, *find_config(arguments)]
    config_flags.DEFINE_config_file('config', flag_values=values, sys_argv=argv)
    text = 'Run directory; by default runs/NAME for a config NAME.py.'
    flags.DEFINE_string('workdir', None, text, flag_values=values)
    recipes = ', '.join(list_recipes())
    if '--help' in arguments:
        print(__doc__.format(program=program, recipes=recipes))
        return 0
    logging.set_verbosity(logging.FATAL)
    try:
        if not any(argument.split('=')[0] == '--config' for argument in argv):
            raise InputError(f'expected a config: {recipes} or a file of your own')
        config_file = parse_flags(values, argv)
        default = str(Path('runs') / config_file.stem)
        workdir = default if values.workdir is None else values.workdir
        # Imported after flag parsing, so that a wrong flag fails immediately.
        from vit_jax.run.compilation_cache import use_compilation_cache
        from vit_jax.train.trainer import train

        use_compilation_cache()
        result = train(values.config, workdir)
    except InputError as error:
        return fail(error, 2)
    except (FloatingPointError, OSError) as error:
        return fail(error, 1)
    except signals.Interrupted as error:
        return fail(f'{error}: the run is saved; run the same command to resume', signals.STATUS)
    accuracy = f'{result["accuracy"]:.2%}'
    print(f'{workdir}: finished after {result["step"]} steps, test accuracy {accuracy}')
    return 0
