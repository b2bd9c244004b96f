"""The folder of a run.

A run directory holds
  config.json        the run's config;
  description.json   what using the result takes: the ViT's arguments, preprocessing, class names,
                     whether a picture may have several; and a random name of the run, which
                     its checkpoints bear too;
  checkpoints/STEP/  see `vit_jax.run.checkpoint`;
  metrics.jsonl and tensorboard/, see `vit_jax.run.metrics`;
  examples.json      the number of examples in each split;
  skipped.json       the examples that were left out, and why; only if there are any;
  diverged.json      the last step that stopped the run, and its examples; only if one did;
  lock               held by the process that trains; not in a bucket.
"""

import contextlib
import os
import sys
import time
import uuid
from collections.abc import Iterator
from typing import Any

from filelock import FileLock, Timeout

from vit_jax.errors import InputError
from vit_jax.parallel.distributed import gathered, is_first
from vit_jax.run.checkpoint_names import check_name, list_steps
from vit_jax.run.description import read_description
from vit_jax.run.json_files import read_json, write_json
from vit_jax.run.metrics import read_metrics
from vit_jax.run.resume import check_resumable
from vit_jax.run.storage import AnyPath, is_remote, list_folder, open_path, remove


@contextlib.contextmanager
def open_run_directory(workdir: str) -> Iterator[AnyPath]:
    """Creates or reopens a run directory and locks it; deletes it again if nothing is written.

    Of several processes, the first does so, and the others print nothing.

    Raises:
      InputError: if it cannot be written, or is in use.
    """
    path = open_path(workdir)
    check_name(path)
    if not is_first():
        gathered('the first has opened it')
        with open(os.devnull, 'w') as nowhere, contextlib.redirect_stdout(nowhere):
            yield path
        return
    is_new = not path.exists()
    with contextlib.ExitStack() as stack:
        try:
            path.mkdir(parents=True, exist_ok=True)
            if not is_remote(path):  # released when the process ends, however it ends
                stack.enter_context(FileLock(path / 'lock', timeout=0))
        except Timeout:
            raise InputError(
                f'--workdir={workdir} is in use by another process; '
                f'wait for it, or choose another --workdir'
            ) from None
        except OSError as error:
            raise InputError(
                f'--workdir={workdir}: expected a writable folder, got: {error.strerror}'
            ) from None
        gathered('it is open')
        try:
            yield path
        finally:
            if is_new and [file.name for file in list_folder(path)] == ['lock']:
                remove(path)


def check_run(run_directory: AnyPath, config: dict[str, Any], description: dict[str, Any]) -> None:
    """Validates that a run may begin or resume here; see `vit_jax.run.resume`.

    Args:
      run_directory: from `open_run_directory`.
      config: every option, nested.
      description: see `record_run`.

    Raises:
      InputError: if it holds a different run, or one whose checkpoints are gone.
    """
    if has_checkpoint(run_directory):
        check_resumable(run_directory, config, description)
    elif lines := read_metrics(run_directory / 'metrics.jsonl'):
        raise InputError(
            f'--workdir={run_directory} has metrics up to step {lines[-1]["step"]}, but no '
            f'checkpoint: restore checkpoints/, or delete the folder to begin again'
        )


def has_checkpoint(run_directory: AnyPath) -> bool:
    """Whether the run has saved a complete checkpoint."""
    return bool(list_steps(run_directory))


def run_name(run_directory: AnyPath) -> str | None:
    """The random name of a run; a new one if it has not begun, None if it is older than names."""
    if has_checkpoint(run_directory):
        return read_description(run_directory)['run']
    return uuid.uuid4().hex


def record_run(
    run_directory: AnyPath,
    config: dict[str, Any],
    description: dict[str, Any],
    counts: dict[str, int],
) -> None:
    """Writes what is known of a run before its first step.

    Args:
      config: every option, nested.
      description: see `vit_jax.run.description.read_description`.
      counts: the number of examples in each split; if it changed on resume, that is printed.
    """
    path = run_directory / 'examples.json'
    before = _read_or_begin_again(path, int) if has_checkpoint(run_directory) else counts
    for split, count in counts.items():
        if before.get(split, count) != count:
            print(
                f'{run_directory}: {split} has {count:,} examples (was {before[split]}); '
                f'the order of examples changes from here'
            )
    if is_first():
        write_json(path, counts)
        write_json(run_directory / 'config.json', config)
        write_json(run_directory / 'description.json', description)


def run_options(run_directory: AnyPath, section: str) -> Any:
    """A section of a run's config, such as 'data'; {} if the folder is not a run directory."""
    if not (run_directory / 'description.json').is_file():
        return {}
    config = read_json(run_directory / 'config.json')
    if not isinstance(config.get(section), dict):
        text = f"expected a run's config.json with a {section!r} section"
        raise InputError(f'{run_directory}: {text}')
    return config[section]


def add_skipped(run_directory: AnyPath, skipped: dict[str, dict[int, str]]) -> int:
    """Adds examples to `skipped.json`, which survives interruptions; returns how many there are.

    Args:
      skipped: by split, the reason for each that this process has skipped, by its index in the
        split.
    """
    path = run_directory / 'skipped.json'
    known = _read_or_begin_again(path, dict)
    for split, own in skipped.items():
        for reasons in gathered({str(index): reason for index, reason in sorted(own.items())}):
            if reasons:
                known[split] = known.get(split, {}) | reasons
    if known and is_first():
        write_json(path, known)
    return sum(map(len, known.values()))


def _read_or_begin_again(path: AnyPath, kind: type) -> dict[str, Any]:
    """A JSON file that nothing depends on; {} if it is missing, or damaged (with a note).

    Args:
      kind: of all its values.
    """
    with contextlib.suppress(InputError):
        content = read_json(path) if path.exists() else {}
        if all(isinstance(value, kind) for value in content.values()):
            return content
    if not is_first():
        return {}
    kept = path.with_name(f'{path.name}.damaged-{time.time_ns()}')
    print(f'{path}: it is damaged, kept as {kept.name} and begun again', file=sys.stderr)
    path.replace(kept)
    return {}
