"""The folder of a run.

A run directory holds
  config.json        the run's config;
  description.json   what using the result takes: the ViT's arguments, preprocessing, class names;
  checkpoints/STEP/  see `vit_jax.run.checkpoint`;
  metrics.jsonl and tensorboard/, see `vit_jax.run.metrics`;
  examples.json      the number of examples in each split;
  skipped.json       the examples that were left out, and why; only if there are any.
"""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flax.traverse_util import flatten_dict

from vit_jax.errors import InputError
from vit_jax.run.json_files import read_json, write_json

# Changing one of these options makes another run, since parameters, optimizer state or data change,
FIXED = ('model.', 'data.', 'init.', 'optim.name', 'optim.freeze', 'optim.layer_decay')
# except for these of them, which may change on resume.
FREE = ('model.dtype', 'model.dropout', 'model.emb_dropout', 'data.dir', 'data.on_error')


@contextlib.contextmanager
def open_run_directory(
    workdir: str, config: dict[str, Any], description: dict[str, Any]
) -> Iterator[Path]:
    """Creates or reopens a run directory and locks it.

    Options that shape neither the parameters nor the data may change on resume; changes are
    printed.

    Args:
      workdir: the folder.
      config: every option, nested.
      description: see `start_run`.

    Raises:
      InputError: if it cannot be written, is in use, or holds another model or other data.
    """
    path = Path(workdir)
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / 'lock').open('a')
    except OSError as error:
        raise InputError(
            f'--workdir={workdir}: expected a writable folder, got: {error.strerror}'
        ) from None
    with lock:
        if sys.platform != 'win32':
            import fcntl

            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released when the process ends
            except BlockingIOError:
                raise InputError(
                    f'--workdir={workdir} is in use by another process; '
                    f'wait for it, or choose another --workdir'
                ) from None
        if has_checkpoint(path):
            _compare_runs(path, config, description)
        yield path


def has_checkpoint(run_directory: Path) -> bool:
    """Whether the run has saved a complete checkpoint."""
    return any(path.name.isdecimal() for path in run_directory.glob('checkpoints/*/'))


def start_run(
    run_directory: Path, config: dict[str, Any], description: dict[str, Any], counts: dict[str, int]
) -> None:
    """Writes what is known of a run before its first step.

    Args:
      config: every option, nested.
      description: 'model' (the ViT's arguments), 'preprocessing', 'class_names'.
      counts: the number of examples in each split; if it changed on resume, that is printed.
    """
    path = run_directory / 'examples.json'
    before = read_json(path) if path.exists() and has_checkpoint(run_directory) else counts
    for split, count in counts.items():
        if before.get(split) != count:
            print(
                f'{run_directory}: {split} has {count:,} examples (was {before.get(split):,}); '
                f'the order of examples changes from here'
            )
    write_json(path, counts)
    write_json(run_directory / 'config.json', config)
    write_json(run_directory / 'description.json', description)


def trained_on(run_directory: Path) -> Any:
    """The options of a run's data; {} if the folder is not a run directory."""
    if not (run_directory / 'description.json').is_file():
        return {}
    config = read_json(run_directory / 'config.json')
    if not isinstance(config, dict) or not isinstance(config.get('data'), dict):
        raise InputError(f"{run_directory}: expected a run's config.json with a 'data' section")
    return config['data']


def add_skipped(run_directory: Path, skipped: dict[str, dict[int, str]]) -> int:
    """Adds examples to `skipped.json`, which survives interruptions; returns how many there are.

    Args:
      skipped: by split, the reason for each, by its index in the split.
    """
    path = run_directory / 'skipped.json'
    known = read_json(path) if path.exists() else {}
    for split, reasons in skipped.items():
        if reasons:
            new = {str(index): reason for index, reason in sorted(reasons.items())}
            known[split] = known.get(split, {}) | new
    if known:
        write_json(path, known)
    return sum(map(len, known.values()))


def _compare_runs(path: Path, config: dict[str, Any], description: dict[str, Any]) -> None:
    """Prints how a run differs from the one in a run directory.

    Raises:
      InputError: if it is another model, other data or another optimizer.
    """
    old = _settings(read_json(path / 'config.json'), read_json(path / 'description.json'))
    new = _settings(config, description)
    changes = {
        name: f'{name}: {old.get(name)} there, {new.get(name)} here'
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    }
    # Without host-side crops and skipped pictures, streaming and memory give identical batches, so
    # memory_gib may change.
    identical = not new['augment.random_resized_crop'] and new['data.on_error'] == 'raise'
    free = (*FREE, 'data.memory_gib') if identical else FREE
    # Options that are newer than the run are only reported.
    forbidden = [
        text
        for name, text in changes.items()
        if name.startswith(FIXED) and name not in free and name in old
    ]
    if forbidden:
        raise InputError(
            f'--workdir={path} already holds a different run ({"; ".join(forbidden)}); '
            f'choose another --workdir or restore those values'
        )
    for text in changes.values():
        print(f'{path}: {text}')


def _settings(config: dict[str, Any], description: dict[str, Any]) -> dict[str, Any]:
    """Every option by its full name; the model's as they were resolved, not as they were asked."""
    options = flatten_dict(config, sep='.')
    others = {name: value for name, value in options.items() if not name.startswith('model.')}
    return others | {f'model.{name}': value for name, value in description['model'].items()}
