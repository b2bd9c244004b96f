"""Trains a Vision Transformer.

python train.py --config=configs/digits.py [--workdir=runs/digits] [--config.KEY=VALUE …]

The same command on the same workdir resumes an interrupted run. configs/default.py lists every KEY.
"""

import sys
from pathlib import Path
from typing import Never

from absl import app, flags, logging
from ml_collections import config_flags

from vit_jax.errors import InputError
from vit_jax.train.config import parse_flags

_CONFIG = config_flags.DEFINE_config_file('config', 'configs/default.py', 'What to train.')
_WORKDIR = flags.DEFINE_string(
    'workdir', None, 'Run directory; by default runs/NAME for configs/NAME.py.'
)


def main(_: list[str]) -> None:
    logging.set_verbosity(logging.ERROR)
    # Imported after flag parsing, so that a wrong flag fails immediately.
    from vit_jax.run.compilation_cache import use_compilation_cache
    from vit_jax.train.trainer import train

    use_compilation_cache()
    config_file = Path(config_flags.get_config_filename(flags.FLAGS['config']))
    workdir = _WORKDIR.value or str(Path('runs') / config_file.stem)
    try:
        result = train(_CONFIG.value, workdir)
    except InputError as error:
        stop(error, 2)
    except FloatingPointError as error:
        stop(error, 1)
    except KeyboardInterrupt:
        stop(
            f'{workdir}: interrupted; run the same command to resume from the newest checkpoint',
            130,
        )
    accuracy = f'{result["accuracy"]:.2%}'
    print(f'{workdir}: finished after {result["step"]} steps, test accuracy {accuracy}')


def parse(argv: list[str]) -> list[str]:
    """Parses the command line; anything wrong in it ends with one line and exit status 2."""
    try:
        parse_flags(flags.FLAGS, argv)
    except InputError as error:
        stop(error, 2)
    return argv[:1]


def stop(reason: object, status: int) -> Never:
    print('train.py:', ' '.join(str(reason).split()), file=sys.stderr)
    sys.exit(status)


if __name__ == '__main__':
    app.run(main, flags_parser=parse)
