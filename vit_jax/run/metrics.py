"""The metrics of a run as files: `metrics.jsonl`, and the same for TensorBoard."""

import contextlib
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import register_writer_factory

from vit_jax.parallel.distributed import is_first
from vit_jax.run.storage import (
    AnyPath,
    WholeFile,
    is_remote,
    list_folder,
    open_to_append,
    write_text,
)

# tensorboardX's own writer to buckets takes a package and credentials of its own.
register_writer_factory('gs', SimpleNamespace(open=WholeFile, directory_check=lambda path: None))


class MetricsWriter:
    """Appends to `metrics.jsonl`, one JSON object per line, and to `tensorboard/`.

    Lines after `first_step` are dropped. They are left over from a run that was interrupted before
    its next checkpoint, and those steps are about to be repeated. `tensorboard/` is written anew
    from the lines that stay. Of several processes, only the first writes.

    Args:
      run_directory: an existing folder.
      first_step: number of steps already done.
    """

    def __init__(self, run_directory: AnyPath, first_step: int) -> None:
        self._path = run_directory / 'metrics.jsonl'
        self.lines = [line for line in read_metrics(self._path) if line['step'] <= first_step]
        self._writes = is_first()
        if not self._writes:
            return
        write_text(self._path, ''.join(json.dumps(line) + '\n' for line in self.lines))
        self._file = open_to_append(self._path)
        # tensorboardX's SummaryWriter writes from a thread, in which errors are lost.
        self._events = EventsWriter(str(_empty_folder(run_directory / 'tensorboard') / 'events'))
        for line in self.lines:
            self._events.write_event(_event(line))
        self._events.flush()

    def close(self) -> None:
        if not self._writes:
            return
        with contextlib.suppress(OSError):  # what could not be written has raised before
            self._file.close()
            self._events.close()

    def write(self, step: int, split: str, metrics: dict[str, float]) -> None:
        """Writes one line and flushes it.

        Raises:
          OSError: if it cannot be written.
        """
        self.lines.append({'step': step, 'split': split, **metrics})
        if not self._writes:
            return
        try:
            self._file.write(f'{json.dumps(self.lines[-1])}\n'.encode())
            self._file.flush()
            self._events.write_event(_event(self.lines[-1]))
            self._events.flush()
        except OSError as error:
            raise OSError(f'{self._path}: cannot be written: {error.strerror}') from None


def _empty_folder(path: AnyPath) -> AnyPath:
    if not is_remote(path) and Path(path).is_symlink():  # what it leads to is not ours
        path.unlink()
    path.mkdir(exist_ok=True)
    for file in list_folder(path):
        if file.name.startswith('events.'):
            file.unlink()
    return path


def _event(line: dict[str, Any]) -> Event:
    """A line of `metrics.jsonl` for TensorBoard."""
    values = [
        Summary.Value(tag=f'{line["split"]}/{name}', simple_value=value)
        for name, value in line.items()
        if name not in ('step', 'split')
    ]
    return Event(wall_time=time.time(), step=line['step'], summary=Summary(value=values))


def read_metrics(path: AnyPath) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`, except damaged ones (with a note)."""
    lines = []
    content = path.read_bytes().decode('utf-8', 'replace') if path.exists() else ''
    for text in content.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            if _is_intact(line := json.loads(text)):
                lines.append(line)
    if num_damaged := len(content.splitlines()) - len(lines):
        print(f'{path}: damaged lines, left out: {num_damaged}', file=sys.stderr)
    return lines


def _is_intact(line: Any) -> bool:
    if not isinstance(line, dict) or not {'step', 'split'} <= line.keys():
        return False
    values = [value for name, value in line.items() if name not in ('step', 'split')]
    is_step = isinstance(line['step'], int) and line['step'] >= 0
    is_known = is_step and line['split'] in ('train', 'test')
    return is_known and all(isinstance(x, float) for x in values)
