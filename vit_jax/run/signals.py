"""SIGTERM, SIGINT and SIGHUP: a run saves and stops; a second signal ends it at once.

"Second" means a second later or more: timeout(1), for one, signals the process and then its group.

As long as there is nothing to save, a signal ends the process at once too, even while the main
thread compiles: a thread of its own reads the signals. From `defer` on, the run polls them with
`check`, between steps and between batches of an evaluation. A signal that the process was told to
ignore, by nohup for instance, stays ignored.

This module imports the standard library alone, so that a command can handle signals from its first
line on.
"""

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

STATUS = 75  # exit status of an interrupted run: EX_TEMPFAIL of sysexits.h, "try again"
SIGNALS = [getattr(signal, n) for n in ('SIGTERM', 'SIGINT', 'SIGHUP') if hasattr(signal, n)]


class Interrupted(KeyboardInterrupt):
    """A signal has asked the run to stop."""


class _Received:
    """The process's signals so far, and who acts on them."""

    names: list[str] = []  # noqa: RUF012
    time = 0.0  # of the first, by the monotonic clock
    deferred = False  # whether there is something to save first
    wakeup: socket.socket | None = None  # signals go to the thread of `end_on_signals`


def end_on_signals(program: str) -> None:
    """Makes a signal end this process, at once or, after `defer`, at the next `check`.

    Args:
      program: its name, for messages.
    """
    reader, _Received.wakeup = socket.socketpair()
    _Received.wakeup.setblocking(False)
    for number in _handled():
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(_Received.wakeup.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader, program), daemon=True).start()


def ignore() -> None:
    """For the end of a command: Python's own end would restore the handlers that kill."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _watch(reader: socket.socket, program: str) -> None:
    while True:
        number = reader.recv(1)[0]
        if number not in SIGNALS or not _record(number):
            continue
        if len(_Received.names) > 1:
            _end(f'{program}: {_Received.names[-1]} again: ended at once', 128 + number)
        elif not _Received.deferred:
            text = 'interrupted, and nothing is lost; run the same command again'
            _end(f'{program}: {_Received.names[0]}: {text}', STATUS)
        else:
            text = 'saving after this step; a second signal ends the run at once'
            below = '\n' if sys.stderr.isatty() else ''  # the progress bar
            print(f'{below}{program}: {_Received.names[0]}: {text}', file=sys.stderr, flush=True)


def _record(number: int) -> bool:
    """Whether a signal counts, not being an echo of the first."""
    if not _Received.names:
        _Received.time = time.monotonic()
    elif time.monotonic() < _Received.time + 1:
        return False
    _Received.names.append(signal.Signals(number).name)
    return True


def _end(message: str, status: int) -> None:
    with contextlib.suppress(Exception):  # there may be no terminal any more
        sys.stdout.flush()
        os.write(sys.stderr.fileno(), f'{message}\n'.encode())
    os._exit(status)


@contextlib.contextmanager
def until_saved() -> Iterator[None]:
    """Ends what `defer` began; outside a command, also restores the handlers of signals."""
    if _Received.wakeup or threading.current_thread() is not threading.main_thread():
        before = {}
    else:
        before = {number: signal.getsignal(number) for number in _handled()}

    def receive(number: Any, _: FrameType | None) -> None:
        if _record(number) and (len(_Received.names) > 1 or not _Received.deferred):
            signal.signal(number, before[number])
            signal.raise_signal(number)

    for number in before:
        signal.signal(number, receive)
    try:
        yield
    finally:
        _Received.deferred = False
        for number, handler in before.items():
            signal.signal(number, handler)
        if before:
            _Received.names.clear()


def defer() -> None:
    """From now on there is something to save: the first signal waits for `check`."""
    _Received.deferred = True


def has_come() -> bool:
    """Whether a signal asks this process to stop at the next opportunity."""
    return bool(_Received.names) and _Received.deferred


def stop() -> NoReturn:
    """Raises Interrupted, for a signal to this process or to another one of the run."""
    raise Interrupted(_Received.names[0] if _Received.names else 'a signal to another process')


def _handled() -> list[signal.Signals]:
    """The signals that are neither ignored nor handled by another language's code."""
    return [n for n in SIGNALS if signal.getsignal(n) not in (signal.SIG_IGN, None)]
