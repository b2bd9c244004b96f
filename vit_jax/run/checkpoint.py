"""Orbax checkpoints: written atomically in the background, verified when read.

A checkpoint is a folder `checkpoints/STEP/` with the items `params`, `ema` (their moving average,
if the run has one), `training` (the rest of the state) and `record` (JSON: the run, a checksum of
each array, and the metrics). Neither Orbax nor TensorStore notices changed values, so every array
is compared with its checksum. The two newest checkpoints and the best one are kept; if the run has
an average, the best ones by either.

Orbax's CheckpointManager is not used because the unreadable metrics of one checkpoint keep it from
opening the others.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import orbax.checkpoint as ocp

from vit_jax.errors import InputError
from vit_jax.parallel.distributed import agreed, gathered, is_first
from vit_jax.run.checkpoint_names import COMMITTED, DELETED, is_left_over, list_steps
from vit_jax.run.checksums import array_checksums
from vit_jax.run.json_files import CHECKSUM, checksum, parse_json
from vit_jax.run.quality import quality
from vit_jax.run.storage import (
    AnyPath,
    absolute,
    is_remote,
    list_folder,
    open_path,
    remove,
    write_text,
)
from vit_jax.run.unfinished import drops_unfinished_reads

Items = Callable[[dict[str, Any]], dict[str, Any]]  # a record → shapes of the items to restore

KEPT = 2  # newest checkpoints; the best one is kept too


class Checkpoints:
    """The checkpoints of a run directory; a context manager that waits for unfinished saves.

    Args:
      run_directory: holds, or will hold, `checkpoints/`.
      run: identifies the run; checkpoints of another one are not read. None to read any.
      read_only: never create, write or delete anything.
    """

    def __init__(
        self, run_directory: str | os.PathLike[str], run: str | None = None, read_only: bool = False
    ) -> None:
        self._directory = absolute(open_path(run_directory))
        self._path = self._directory / 'checkpoints'
        self._run = run
        self._handler = ocp.CompositeCheckpointHandler()
        self._checkpointer = ocp.AsyncCheckpointer(self._handler)
        self._saved_at = time.monotonic()
        self._unknown: set[int] = set()  # steps whose damaged records were reported
        self.last: int | None = None  # step last restored, or saved, finished or not
        if not read_only and is_first():
            self._remove(is_left_over)

    def __enter__(self) -> 'Checkpoints':
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.wait()
            self._checkpointer.close()
        except OSError:
            if kind is None:  # otherwise the first error counts
                raise

    @property
    def steps(self) -> list[int]:
        """Steps of all complete checkpoints, in order."""
        return list_steps(self._directory)

    def best(self, ema: bool = True) -> int | None:
        """Step of the checkpoint with the highest `quality` in the test, the latest of equals.

        Args:
          ema: whether that of the moving average counts, if there is one.
        """
        with_average, without = self._bests()
        return with_average if ema else without

    def is_due(self, every_minutes: float) -> bool:
        """Whether the last save, or this object's creation, is so many minutes ago; 0: never."""
        return 0 < every_minutes < (time.monotonic() - self._saved_at) / 60

    def save(self, step: int, state: Any, metrics: dict[str, float] | None) -> None:
        """Starts to save a state; returns once its arrays may change, before they are on disk.

        Args:
          step: number of steps done.
          state: a `vit_jax.train.step.TrainState`. Its parameters are stored apart from the rest,
            so that they can be restored alone.
          metrics: of the test at this step, see `quality`; None, if there was none, is never best.

        Raises:
          FloatingPointError: if a value is not finite.
          OSError: if this or the previous checkpoint cannot be written.
        """
        self.wait()
        items = _items(state)
        sums, finite = array_checksums(items)
        if not finite:
            raise FloatingPointError(f'step {step}: a value of the state is not finite')
        record = {'run': self._run, 'step': step, 'checksums': sums, 'metrics': metrics}
        record[CHECKSUM] = checksum(record)
        args = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
        self._saved_at, self.last = time.monotonic(), step
        composite = ocp.args.Composite(**args, record=ocp.args.JsonSave(record))
        self._attempt(lambda: self._checkpointer.save(self._path / str(step), args=composite))

    def check(self) -> None:
        """Raises OSError if a checkpoint could not be written in the background."""
        self._attempt(self._checkpointer.check_for_errors)

    def wait(self) -> None:
        """Waits for the last save and deletes the checkpoints that need not be kept.

        Raises:
          OSError: if a checkpoint could not be written.
        """
        self._attempt(self._checkpointer.wait_until_finished)
        # Until a state was restored or saved, the newest checkpoints may be damaged or foreign.
        if self.last is not None and is_first():
            kept = {*self.steps[-KEPT:], *self._bests(), *self._unknown}
            superfluous = {str(step) for step in self.steps if step not in kept}
            self._remove(lambda path: path.name in superfluous)

    def metrics(self, step: int) -> dict[str, float] | None:
        """The metrics of an intact checkpoint; None if it was not evaluated."""
        metrics: dict[str, float] | None = self._record(step)['metrics']
        return metrics

    def add_metrics(self, step: int, metrics: dict[str, float]) -> None:
        """Stores the metrics of an intact checkpoint that was not evaluated."""
        path = self._path / str(step) / 'record' / 'metadata'
        if path.exists() and is_first():
            record = self._record(step) | {'metrics': metrics}
            write_text(path, json.dumps(record | {CHECKSUM: checksum(record)}))

    def restore_newest(self, like: Any) -> tuple[int, Any]:
        """The newest state that is intact; sets damaged ones aside.

        Args:
          like: a TrainState of jax.ShapeDtypeStruct; arrays without a sharding are put on the first
            device.

        Returns:
          Its step, and the state.

        Raises:
          InputError: if there is none.
        """
        step, restored, damaged = self._newest(lambda _: _items(like))
        for newer in damaged if is_first() else ():
            path = self._path / str(newer)
            path.rename(path.with_name(f'{newer}.damaged-{time.time_ns()}'))
        self.last = step
        state = restored.pop('training')
        return step, like.replace(**restored, **state)

    def restore_params(self, step: int | None, like: Any, ema: bool = True) -> tuple[int, str, Any]:
        """The parameters alone, on the first device.

        Args:
          step: of the checkpoint; None for the newest that is intact.
          like: their jax.ShapeDtypeStruct.
          ema: whether to take their moving average, if there is one.

        Returns:
          The step of the checkpoint; 'params' or 'ema'; and its parameters.

        Raises:
          InputError: if it is damaged, or there is none.
        """

        def items(record: dict[str, Any]) -> dict[str, Any]:
            averaged = any(name.startswith('ema/') for name in record['checksums'] or ())
            return {'ema' if ema and averaged else 'params': like}

        if step is None:
            step, restored, _ = self._newest(items)
        else:
            restored = self._restore(step, items)
        return step, *next(iter(restored.items()))

    def _newest(self, items: Items) -> tuple[int, dict[str, Any], list[int]]:
        damaged: list[int] = []
        for step in reversed(agreed(self.steps)):
            try:
                restored = self._restore(step, items)
            except InputError as error:
                damaged.append(step)
                reason = error
            else:
                if damaged:
                    print(f'{reason}; checkpoint {step} is used instead', file=sys.stderr)
                return step, restored, damaged
        raise reason if damaged else InputError(f'{self._path}: there is no checkpoint')

    @drops_unfinished_reads
    def _restore(self, step: int, items: Items) -> dict[str, Any]:
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

        def place(x: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding or device)

        path = self._path / str(step)
        arrays, reason = dict[str, Any](), None
        try:
            record = self._record(step)
            placed = jax.tree.map(place, items(record))
            args = {name: ocp.args.StandardRestore(tree) for name, tree in placed.items()}
            # Not by the checkpointer: it would wait for a process in which this raises.
            arrays = dict(self._handler.restore(path, ocp.args.Composite(**args)).items())
        except Exception as error:  # a damaged file can make TensorStore fail in any way
            reason = str(error).strip().split('\n')[0]
        reasons = [text for text in gathered(reason) if text is not None]
        if not reasons and record['checksums'] is not None:
            sums, _ = array_checksums(arrays)
            differing = [name for name, x in sums.items() if record['checksums'].get(name) != x]
            reasons = [f'the checksum of {name} differs' for name in differing]
        if reasons:
            raise InputError(f'{path}: the checkpoint is damaged: {reasons[0][:200]}')
        return arrays

    def _record(self, step: int) -> dict[str, Any]:
        path = self._path / str(step)
        if self._run is None and not (path / 'record').exists():  # older than the record
            metrics = path / 'metrics' / 'metrics'
            old = parse_json(metrics.read_text()) if metrics.exists() else None
            return {'run': None, 'checksums': None, 'metrics': old}
        record = parse_json((path / 'record' / 'metadata').read_text())
        if record.pop(CHECKSUM) != checksum(record):
            raise ValueError('the checksum of its record differs')
        if self._run not in (None, record['run']):
            raise ValueError('it belongs to another run')
        if record.get('step', step) != step:
            raise ValueError(f'it was saved as {record["step"]}')
        return record

    def _bests(self) -> list[int | None]:
        """`best` with the moving average and without; each record is read once."""
        qualities = {step: self._qualities(step) for step in self.steps}
        known = {step: values for step, values in qualities.items() if values is not None}

        def best(i: int) -> int | None:
            return max(known, key=lambda step: (known[step][i], step), default=None)

        return [best(0), best(1)]

    def _qualities(self, step: int) -> tuple[float, float] | None:
        try:
            metrics = self.metrics(step)
            if metrics is None:
                return None
            return quality(metrics)[1], quality(metrics, ema=False)[1]
        except Exception as error:  # a damaged file can hold anything
            if step not in self._unknown:
                self._unknown.add(step)
                reason = f'{error}; the checkpoint is kept, but cannot be the best one'
                print(f'{self._path / str(step)}: {reason}', file=sys.stderr)
            return None

    def _remove(self, is_superfluous: Callable[[AnyPath], bool]) -> None:
        for path in filter(is_superfluous, list_folder(self._path)):
            # Half a checkpoint must never pass for one.
            if is_remote(path):
                (path / COMMITTED).unlink(missing_ok=True)
            elif path.suffix != DELETED:
                remove(path.with_suffix(DELETED))
                path = path.rename(path.with_suffix(DELETED))
            remove(path)

    def _attempt(self, write: Callable[[], Any]) -> None:
        try:
            write()
        except Exception as error:
            reason = str(error).strip().split('\n')[0]
            there = f'the last one is {self.steps[-1]}' if self.steps else 'there is none yet'
            raise OSError(
                f'{self._path}: checkpoint {self.last} cannot be written, {there}: {reason[:200]}'
            ) from None


def _items(state: Any) -> dict[str, Any]:
    """What can be restored alone."""
    items = {'params': state.params, 'training': {'step': state.step, 'opt_state': state.opt_state}}
    return items if state.ema is None else items | {'ema': state.ema}
