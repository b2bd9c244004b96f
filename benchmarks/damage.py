"""What damaged run directories do: each file cut, emptied, zeroed, flipped, replaced, removed.

python benchmarks/damage.py [--cases 640] [--seed 0]

A small run is trained. Each case damages one file of a copy, which is then used by `predict`,
`evaluate` and `convert` and resumed. Each must end as with an intact checkpoint, or with one line
of error. Other numbers, a restart from step 0 and tracebacks are failures.
"""

import argparse
import contextlib
import hashlib
import io
import os
import random
import re
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')  # compiling takes most of the time

from benchmarks.report import describe_machine, write_result
from vit_jax.errors import InputError
from vit_jax.run.compilation_cache import use_compilation_cache
from vit_jax.run.output import silence_libraries

STEPS = 10
KEPT = (4, 8)  # checkpoints of the interrupted run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--cases', type=int, default=640)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--data-dir', help='with tfds:digits')
    output = ROOT / 'benchmarks' / 'results' / 'damage.json'
    parser.add_argument('--output', type=Path, default=output)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ['XDG_CACHE_HOME'] = folder
        use_compilation_cache()
        silence_libraries()
        data_dir = arguments.data_dir or f'{folder}/data'
        result = damage_run(Path(folder), arguments.cases, arguments.seed, data_dir)
    result = {'machine': describe_machine(), **result}
    markdown = ''.join(f'| {end} | {count} |\n' for end, count in result['ends'].items())
    markdown = f'| {arguments.cases} damaged run directories | cases |\n|--|--|\n{markdown}'
    print(markdown, *result['failures'], sep='\n')
    write_result(result, markdown, arguments.output)
    sys.exit(bool(result['failures']))


def damage_run(folder: Path, num_cases: int, seed: int, data_dir: str) -> Any:
    """Damages copies of a run.

    Args:
      folder: to work in.
      num_cases: how many; all files and damages once before one is repeated.
      seed: of the choices.
      data_dir: of TFDS, for `tfds:digits`.

    Returns:
      'ends', the number of cases by how they ended, and 'failures', one line each.
    """
    from PIL import Image

    from vit_jax.__main__ import main as vit_jax
    from vit_jax.run import checkpoint
    from vit_jax.train.trainer import train
    from vit_jax.weights import load_weights

    config = small_config(data_dir)
    whole, run = folder / 'whole', folder / 'run'
    checkpoint.KEPT, kept = STEPS, checkpoint.KEPT
    with contextlib.redirect_stdout(io.StringIO()):
        train(config, str(whole))
    checkpoint.KEPT = kept
    intact = load_weights(whole, step=STEPS)[1]
    Image.linear_gradient('L').save(folder / 'picture.png')
    shutil.copytree(whole, run)
    for step in run.glob('checkpoints/*'):
        if int(step.name) not in KEPT:
            shutil.rmtree(step)

    def predict(path: Path, *options: str) -> str:
        return command('predict', path, folder / 'picture.png', '--format', 'json', *options)

    def evaluate(path: Path, *options: str) -> str:
        return command('evaluate', path, *options)

    def convert(path: Path, *options: str) -> str:
        converted = folder / 'converted.safetensors'
        command('convert', path, converted, '--to', 'seed', *options)
        return hashlib.sha256(converted.read_bytes()).hexdigest()

    def command(*arguments: object) -> str:
        """What a command prints, except a line on the checkpoint that it falls back to."""
        printed, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(errors):
            status = vit_jax([str(x) for x in arguments])
        if status:
            raise InputError(errors.getvalue().strip())
        print(errors.getvalue(), end='')
        return printed.getvalue()

    def resume(path: Path) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            last = train(config, str(path))
        begun = re.search(rf'(\d+) of {STEPS} steps are done', printed.getvalue())
        resumed = begun is not None and int(begun[1]) in KEPT and last['step'] == STEPS
        return f'{resumed and equal(load_weights(path)[1], intact)}'

    right = {
        use: [use(whole, f'--step={step}') for step in KEPT] for use in (predict, evaluate, convert)
    }
    right[resume] = ['True']

    rng = random.Random(seed)
    files = sorted(path.relative_to(run) for path in run.rglob('*') if path.is_file())
    # The older checkpoint is not read as long as the newer one is intact.
    older = f'checkpoints/{KEPT[0]}/'
    pairs = [
        (name, damage)
        for name in files
        for damage in (DAMAGES[:1] if str(name).startswith(older) else DAMAGES)
    ]
    rng.shuffle(pairs)
    ends: Counter[str] = Counter()
    failures = []
    for case in range(num_cases):
        name, damage = pairs[case % len(pairs)]
        copy = folder / 'copy'
        shutil.copytree(run, copy)
        damage(copy / name, rng)
        for use, outputs in right.items():
            end, problem = attempt(use, copy, outputs)
            ends[f'{use.__name__}: {end}'] += 1
            if problem:
                failures.append(
                    f'case {case}: {name}, {damage.__name__}, {use.__name__}: {problem}'
                )
        shutil.rmtree(copy)
    return {'ends': dict(sorted(ends.items())), 'failures': failures}


def attempt(use: Callable[[Path], str], path: Path, right: list[str]) -> tuple[str, str]:
    """How a use of a damaged run ended, and what was wrong with that; '' if nothing."""
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            is_right = use(path) in right
    except (InputError, OSError) as error:
        several = len(str(error).splitlines()) > 1
        return 'one line of error', f'several lines: {error}' if several else ''
    except Exception as error:
        return type(error).__name__, traceback.format_exc(limit=-3)
    fell_back = 'is used instead' in printed.getvalue()
    return (
        'the checkpoint before' if fell_back else 'as undamaged',
        '' if is_right else 'other numbers, or another start',
    )


def small_config(data_dir: str) -> Any:
    from configs import digits

    config = digits.get_config()
    settings = {
        'data.dir': data_dir,
        'data.train_split': 'train[:64]',
        'data.test_split': 'test[:16]',
        'num_steps': STEPS,
        'batch_size': 16,
        'log_every_steps': 2,
        'eval_every_steps': 0,
        'checkpoint_every_steps': KEPT[0],
        'model.dim': 8,
        'model.depth': 1,
        'model.heads': 1,
        'model.mlp_dim': 8,
        'optim.warmup_steps': 2,
    }
    config.update_from_flattened_dict(settings)
    return config


def equal(one: Any, other: Any) -> bool:
    import jax
    import numpy as np

    same = jax.tree.map(np.array_equal, one, other)
    return all(jax.tree.leaves(same))


def cut_in_half(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def cut_somewhere(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content) + 1)])


def empty(path: Path, rng: random.Random) -> None:
    path.write_bytes(b'')


def zero(path: Path, rng: random.Random) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def flip_25_bits(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(25 if content else 0):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def flip_one_bit(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    if content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def replace_by_json(path: Path, rng: random.Random) -> None:
    path.write_text(rng.choice(['null', '[]', '{}', '"text"', '1e999', '{"model": null}']))


def replace_by_noise(path: Path, rng: random.Random) -> None:
    path.write_bytes(rng.randbytes(max(1, path.stat().st_size)))


def remove(path: Path, rng: random.Random) -> None:
    path.unlink()


DAMAGES = (
    cut_in_half,
    flip_one_bit,
    replace_by_json,
    remove,
    empty,
    flip_25_bits,
    zero,
    replace_by_noise,
    cut_somewhere,
    flip_one_bit,
)

if __name__ == '__main__':
    main()
