"""Every option of a config × 30 hostile values: one line of error, or accepted; no memory taken.

python benchmarks/options.py

Each case goes through `vit_jax.train` up to the point at which all options have been checked. Then
training would begin, so the case ends there as accepted.
"""

import argparse
import contextlib
import io
import os
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

from flax.traverse_util import flatten_dict

from benchmarks.report import describe_machine, write_result
from vit_jax.errors import InputError

VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    2**31 - 1,
    2**31,
    2**63,
    4294967295,
    10**12,
    10**30,
    0.5,
    -0.5,
    1e-300,
    1e300,
    float('nan'),
    float('inf'),
    '',
    'x',
    'a' * 5000,
    'train[5:2]',
    'tfds:',
    '../..',
    'a\nb\0c',
    (),
    (0,),
    ('*',),
    (1e300, -1, 'x'),
)
SECONDS, GIB = 20, 2.0  # the most that a case may take


class Accepted(BaseException):
    """All options have been checked."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    output = ROOT / 'benchmarks' / 'results' / 'options.json'
    parser.add_argument('--output', type=Path, default=output)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ends, failures = try_all(Path(folder))
    markdown = ''.join(f'| {end} | {count} |\n' for end, count in sorted(ends.items()))
    markdown = f'| {sum(ends.values())} values of options | cases |\n|--|--|\n{markdown}'
    print(markdown, *failures, sep='\n')
    result = {'machine': describe_machine(), 'ends': dict(ends), 'failures': failures}
    write_result(result, markdown, arguments.output)
    sys.exit(bool(failures))


def try_all(folder: Path) -> tuple[Counter[str], list[str]]:
    """How the cases ended, and what was wrong."""
    from configs import digits
    from vit_jax.train import trainer

    def accept(*_: Any) -> None:
        raise Accepted

    trainer.Checkpoints = accept
    os.chdir(folder)  # some values are paths
    ends: Counter[str] = Counter()
    failures = []
    names = list(flatten_dict(digits.get_config().to_dict(), sep='.'))
    for name in names:
        for value in VALUES:
            config = digits.get_config()
            config.data.dir = str(folder / 'data')
            config.data.train_split, config.data.test_split = 'train[:16]', 'test[:16]'
            config.num_steps = 10
            config.optim.warmup_steps = 2
            with config.unlocked():
                try:
                    config.update_from_flattened_dict({name: value})
                except (TypeError, ValueError, KeyError):  # ml_collections' own check of types
                    ends['refused by its type'] += 1
                    continue
            begun, wrong = time.monotonic(), ''
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    trainer.train(config, str(folder / 'run'))
                end = 'finished?'
            except Accepted:
                end = 'accepted'
            except (InputError, OSError) as error:
                end = 'refused in one line'
                if len(str(error).replace(str(value), '').splitlines()) > 1:
                    wrong = repr(error)
            except Exception:
                end, wrong = 'traceback', traceback.format_exc(limit=-2)
            ends[end] += 1
            if (seconds := time.monotonic() - begun) > SECONDS:
                wrong = f'took {seconds:.0f} s'
            if wrong:
                failures.append(f'{name}={str(value)[:40]!r}: {wrong}')
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if peak > GIB:
        failures.append(f'the process took {peak:.1f} GiB')
    return ends, failures


if __name__ == '__main__':
    main()
