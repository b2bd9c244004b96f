"""Trains a Vision Transformer.

python train.py --config=configs/digits.py [--workdir=runs/digits] [--config.KEY=VALUE …]

The same command on the same workdir resumes an interrupted run. configs/default.py lists every KEY.

Exit status: 0 finished; 1 the run diverged or a file cannot be written; 2 wrong input; 75 a signal
(SIGTERM, SIGINT, SIGHUP) interrupted the run, which is saved: run the same command again.
"""

import sys
from pathlib import Path

from vit_jax.run import output, signals

if __name__ == '__main__':
    output.outlive_readers()
    signals.end_on_signals('train.py')  # before the slow imports

from absl import flags, logging
from ml_collections import config_flags

from vit_jax.errors import InputError
from vit_jax.train.config import parse_flags


def main(argv: list[str]) -> int:
    """Runs one command line; returns its exit status."""
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        'config', 'configs/default.py', 'What to train.', flag_values=values, sys_argv=argv
    )
    text = 'Run directory; by default runs/NAME for configs/NAME.py.'
    flags.DEFINE_string('workdir', None, text, flag_values=values)
    if '--help' in argv:
        print(f'{__doc__}\n{values.main_module_help()}')
        return 0
    logging.set_verbosity(logging.FATAL)
    try:
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


def fail(reason: object, status: int) -> int:
    """Prints the reason in one line; returns the status."""
    print('train.py:', ' '.join(str(reason).split()), file=sys.stderr)
    return status


if __name__ == '__main__':
    output.silence_libraries()
    status = main(sys.argv)
    signals.ignore()
    sys.exit(status)
