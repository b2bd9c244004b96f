"""Several processes as one run: they find each other, decide together, and end together.

A launcher starts the same command on every host (`docs/scaling.md`). `jax.distributed` connects the
processes and watches their heartbeats. When one is gone, it aborts the others with a page of C++; a
process that has joined says it in one line instead. A process that is stuck keeps its heart
beating: the others find out because their next step takes too long, see `Wishes`.
"""

import contextlib
import ctypes
import functools
import importlib.util
import io
import json
import os
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vit_jax.errors import InputError

STATUS = 75  # exit status of a process that lost the others: EX_TEMPFAIL of sysexits.h, "try again"
AGAIN = 'Run the same command again on all hosts.'


class _Joined:
    """What this process knows of the others."""

    step_seconds = 0.0
    deadline: float | None = None  # by the monotonic clock, until which this process gets on
    loss = ''  # what an abort means
    name = 'this process'
    stderr = 2
    on_abort: Any = None  # ctypes keeps no reference to it


def join(
    *,
    coordinator_address: str | None,
    num_processes: int | None,
    process_id: int | None,
    connect_seconds: int,
    heartbeat_seconds: int,
    step_seconds: float,
) -> None:
    """Connects this process with the others of its run, if there are any.

    Call it before anything asks jax for devices. Slurm, Open MPI, Kubernetes and TPU pods are
    recognised by their environment.

    Args:
      coordinator_address: HOST:PORT of process 0; None if the environment tells it.
      num_processes: of the run; None likewise.
      process_id: of this process, from 0; None likewise.
      connect_seconds: the longest wait for all processes to connect.
      heartbeat_seconds: a process that has given no sign of life for so long ends the others.
      step_seconds: the longest between two calls of `Wishes`.

    Raises:
      InputError: if only some of the first three are given, or they do not fit.
    """
    if jax.distributed.is_initialized():
        return
    explicit = {
        'coordinator_address': coordinator_address,
        'num_processes': num_processes,
        'process_id': process_id,
    }
    missing = [f'distributed.{name}' for name, value in explicit.items() if value is None]
    if num_processes == 1 or (len(missing) == 3 and not _in_cluster(os.environ)):
        return
    if 0 < len(missing) < 3:
        raise InputError(f'{", ".join(missing)}: expected a value, as the others are set, got None')
    if num_processes is not None and process_id is not None and process_id >= num_processes:
        raise InputError(
            f'distributed.process_id: expected less than num_processes={num_processes}, '
            f'got {process_id}'
        )
    port = (coordinator_address or ':1').rpartition(':')[2]
    if coordinator_address and not (port.isdecimal() and 0 < int(port) < 2**16):
        raise InputError(
            f'distributed.coordinator_address: expected HOST:PORT, got {coordinator_address!r}'
        )
    _Joined.step_seconds = step_seconds
    if process_id is not None:
        _Joined.name = f'process {process_id}'
    _Joined.loss = (
        f'has not connected to all others within {connect_seconds} s: are they running, and can '
        f'they reach {coordinator_address or "the first one"}?'
    )
    _abort_in_one_line()
    jax.config.update('jax_enable_preemption_service', False)  # it takes SIGTERM for itself
    try:
        jax.distributed.initialize(
            coordinator_address,
            num_processes,
            process_id,
            heartbeat_timeout_seconds=heartbeat_seconds,
            initialization_timeout=connect_seconds,
            shutdown_timeout_seconds=heartbeat_seconds,
        )
    except (RuntimeError, ValueError) as error:
        if missing and isinstance(error, ValueError):  # no launcher after all
            return
        reason = str(error).strip().split('\n')[0][:300]
        raise InputError(f'distributed: the processes cannot be connected: {reason}') from None
    _Joined.name = f'process {jax.process_index()} of {jax.process_count()}'
    threading.Thread(target=_keep_deadline, daemon=True).start()
    _Joined.loss = (
        f'has lost another one, or had no sign of life from it for {heartbeat_seconds} s.'
    )


def is_first() -> bool:
    """Whether this process is the one that writes what is written once."""
    return jax.process_index() == 0


def gathered(value: Any) -> list[Any]:
    """Each process's value. All processes must call this together.

    Args:
      value: anything that JSON can hold.
    """
    if jax.process_count() == 1:
        return [value]
    own = np.frombuffer(json.dumps(value).encode(), np.uint8)
    try:
        sizes = multihost_utils.process_allgather(np.int32(own.size))
        padded = np.zeros(sizes.max(), np.uint8)
        padded[: own.size] = own
        rows = multihost_utils.process_allgather(padded)
    except Exception as error:
        _end_if_lost(error)
        raise
    return [json.loads(row[:n].tobytes()) for row, n in zip(rows, sizes, strict=True)]


def check_same(values: dict[str, Any]) -> None:
    """Validates that all processes have the same values.

    Raises:
      InputError: naming the first that differs, in all processes.
    """
    first, *others = gathered(values)
    for other in others:
        for name, value in other.items():
            if first.get(name) != value:
                raise InputError(
                    f'{name}: expected the same in all processes, got {first.get(name)!r} and '
                    f'{value!r}'
                )


def agreed(value: Any) -> Any:
    """The first process's value, see `gathered`."""
    return gathered(value)[0]


class Wishes:
    """Wishes that count as soon as any process has them, and for all processes at the same step.

    The answer of one call is fetched by the next, so that nobody waits for it; a single process
    gets its own at once. As a context manager, it ends this process if the next call takes longer
    than `join` was told, or if an error says that another process is gone.

    Args:
      number: of wishes.
    """

    def __init__(self, number: int) -> None:
        self._pending: Any = np.zeros(number, bool)

    def __enter__(self) -> 'Wishes':
        self._is_inner = _Joined.deadline is not None
        return self

    def __exit__(self, _: Any, error: BaseException | None, *__: object) -> None:
        _end_if_lost(error)
        _Joined.deadline = time.monotonic() + _Joined.step_seconds if self._is_inner else None

    def __call__(self, *own: bool) -> list[bool]:
        """Which wishes any process had at the last call.

        Args:
          own: this process's.
        """
        if jax.process_count() == 1:
            return list(own)
        asked = _any(own)
        answer: list[bool] = np.asarray(self._pending).tolist()
        self._pending = asked
        _Joined.deadline = time.monotonic() + _Joined.step_seconds
        return answer


def _any(wishes: Sequence[bool]) -> jax.Array:
    """Which of several wishes any process has, on all devices."""
    mesh, ask = _ask()
    rows = np.tile(np.array(wishes), (jax.local_device_count(), 1))
    by_device = NamedSharding(mesh, PartitionSpec('devices'))
    return ask(jax.make_array_from_process_local_data(by_device, rows))


@functools.cache
def _ask() -> tuple[Mesh, Callable[[jax.Array], jax.Array]]:
    mesh = Mesh(np.array(jax.devices()), ('devices',))
    everywhere = NamedSharding(mesh, PartitionSpec())
    return mesh, jax.jit(lambda rows: rows.any(axis=0), out_shardings=everywhere)


def leave(status: int) -> None:
    """Ends a process that has failed, at once: its heart must not beat on while others wait."""
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _in_cluster(environment: Mapping[str, str]) -> bool:
    """Whether a launcher that jax knows has started this process as one of several."""
    sizes = (environment.get(name, '1') for name in ('SLURM_NTASKS', 'OMPI_COMM_WORLD_SIZE'))
    several = any(size != '1' for size in sizes)
    in_job = {'KUBERNETES_SERVICE_HOST', 'JOB_COMPLETION_INDEX'} <= environment.keys()
    on_tpu = importlib.util.find_spec('libtpu') and (
        Path('/dev/accel0').exists() or Path('/dev/vfio/0').exists()
    )
    return several or in_job or bool(on_tpu)


def _abort_in_one_line() -> None:
    """From now on, what C++ writes to stderr is shown only if this process aborts by itself."""
    _Joined.stderr = os.dup(2)
    kind: Any = type(getattr(sys.stderr.buffer, 'raw', None))  # may outlive its readers
    raw = kind if issubclass(kind, io.FileIO) else io.FileIO
    buffer = io.BufferedWriter(raw(_Joined.stderr, 'w', closefd=False))
    sys.stderr = io.TextIOWrapper(buffer, errors='backslashreplace', line_buffering=True)
    hidden, path = tempfile.mkstemp()
    os.unlink(path)
    os.dup2(hidden, 2)

    @ctypes.CFUNCTYPE(None, ctypes.c_int)
    def on_abort(_: int) -> None:
        text = os.pread(hidden, 1 << 20, 0)
        if b'distributed service' not in text and b'oordination' not in text:
            os.write(_Joined.stderr, text)
            os._exit(128 + signal.SIGABRT)
        _end(_Joined.loss)

    _Joined.on_abort = on_abort
    ctypes.CDLL(None).signal(signal.SIGABRT, on_abort)


def _keep_deadline() -> None:
    """Ends this process when it has not got on for too long."""
    while True:
        time.sleep(min(1.0, _Joined.step_seconds / 4))
        if (deadline := _Joined.deadline) is not None and time.monotonic() > deadline:
            _end(f'has waited {_Joined.step_seconds:g} s in a step: is another one stuck?')


def _end_if_lost(error: BaseException | None) -> None:
    """Ends this process in one line if an error says that it has lost another one."""
    signs = 'Gloo|NCCL|UNAVAILABLE|DEADLINE_EXCEEDED|[Cc]onnection'  # in errors of collectives
    is_collective = isinstance(error, jax.errors.JaxRuntimeError | ValueError)
    if jax.process_count() > 1 and is_collective and re.search(signs, str(error)):
        _end('has lost another one.')


def _end(text: str) -> NoReturn:
    """Ends this process, in one line."""
    line = f'{Path(sys.argv[0]).name}: {_Joined.name} {text} {AGAIN}\n'
    with contextlib.suppress(OSError):
        os.write(_Joined.stderr, line.encode())
    os._exit(STATUS)
