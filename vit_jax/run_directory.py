"""The folder that a run lives in, and its JSON files.

A run directory holds
  config.json        what was asked for;
  description.json   what it takes to use the result: the ViT's arguments, preprocessing, classes;
  checkpoints/STEP/  see `vit_jax.checkpoint`;
  metrics.jsonl and tensorboard/, see `vit_jax.metrics`;
  examples.json      how many examples the splits have;
  skipped.json       which examples were left out and why, where some were.
"""

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flax.traverse_util import flatten_dict

from vit_jax.errors import InputError

# What a run may change about its model from one start to the next: the parameters stay as they are.
FREE = (
    'data.dir',
    'data.on_error',
    'model.dtype',
    'model.attention',
    'model.remat',
    'model.unroll',
    'model.dropout',
    'model.emb_dropout',
)

# What the optimizer's state is made for.
OPTIMIZER = ('optim.name', 'optim.freeze', 'optim.layer_decay')


@contextlib.contextmanager
def open_run_directory(workdir: str, config: Any) -> Iterator[Path]:
    """Makes the run directory, or checks that the run in it is the config's; keeps others out.

    Options that do not shape the parameters or the data may change from one start to the next;
    what changed is printed.

    Raises:
      InputError: where it cannot be written, is in use, or holds another model or other data.
    """
    path = Path(workdir)
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / 'lock').open('a')
    except OSError as error:
        raise InputError(
            f'--workdir={workdir}: expected a folder that can be written, got: {error.strerror}'
        ) from None
    with lock:
        if sys.platform != 'win32':
            import fcntl

            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the process
            except BlockingIOError:
                raise InputError(
                    f'--workdir={workdir} is in use by another process; '
                    f'wait for it, or choose another --workdir'
                ) from None
        if has_checkpoint(path):
            compare_configs(path, config)
        yield path


def has_checkpoint(run_directory: Path) -> bool:
    """Whether there is one that was written to its end."""
    return any(path.name.isdecimal() for path in run_directory.glob('checkpoints/*/'))


def compare_configs(path: Path, config: Any) -> None:
    """Prints how a config differs from the one in a run directory.

    Raises:
      InputError: where it describes another model, other data or another optimizer.
    """
    old = flatten_dict(read_json(path / 'config.json'), sep='.')
    new = flatten_dict(config.to_dict(), sep='.')
    changes = {
        name: f'{name} is {old.get(name)} there and {new.get(name)} here'
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    }
    # Without a crop of the original pictures, and all of them there, a stream is what memory is.
    same = not new['augment.random_resized_crop'] and new['data.on_error'] == 'raise'
    free = (*FREE, 'data.memory_gib') if same else FREE
    fixed = [
        text
        for name, text in changes.items()
        if name.startswith(('model.', 'data.', 'init.', *OPTIMIZER))
        and name not in free
        and name in old  # an option that is new since then is told
    ]
    if fixed:
        raise InputError(
            f'--workdir={path} holds another run: {"; ".join(fixed)}; '
            f'choose another --workdir or the values there'
        )
    for text in changes.values():
        print(f'{path}: {text}')


def write_json(path: Path, content: Any) -> None:
    """Writes a file whole or not at all."""
    temporary = path.with_name(path.name + '.tmp')
    temporary.write_text(json.dumps(content, indent=2) + '\n')
    temporary.replace(path)


def note_examples(run_directory: Path, counts: dict[str, int]) -> None:
    """Writes how many examples the splits have, and prints where that has changed."""
    path = run_directory / 'examples.json'
    before = read_json(path) if path.exists() and has_checkpoint(run_directory) else counts
    for split, count in counts.items():
        if before.get(split) != count:
            print(
                f'{run_directory}: {split} has {count:,} examples, and had {before.get(split):,}; '
                f'they come in another order from here on'
            )
    write_json(path, counts)


def add_skipped(run_directory: Path, skipped: dict[str, dict[int, str]]) -> int:
    """Adds examples to `skipped.json`, which outlives interruptions; returns how many there are.

    Args:
      skipped: by split, what was wrong with each, by its place in the split.
    """
    path = run_directory / 'skipped.json'
    known = read_json(path) if path.exists() else {}
    for split, reasons in skipped.items():
        told = {str(place): reason for place, reason in sorted(reasons.items())}
        if told:
            known[split] = known.get(split, {}) | told
    if known:
        write_json(path, known)
    return sum(map(len, known.values()))


def parse_json(text: str) -> Any:
    """Parses JSON; the lists in its objects become the tuples that they were."""

    def as_tuples(fields: dict[str, Any]) -> dict[str, Any]:
        return {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}

    return json.loads(text, object_hook=as_tuples)


def read_json(path: Path) -> Any:
    """Reads a JSON file of a run directory.

    Raises:
      InputError: where it is missing or not JSON.
    """
    try:
        return parse_json(path.read_text())
    except FileNotFoundError:
        raise InputError(
            f'{path.parent}: expected a run directory, but it has no {path.name}'
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f'{path}: expected JSON, but it cannot be read: {error}') from None
