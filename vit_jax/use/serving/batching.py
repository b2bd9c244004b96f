"""Dynamic batching: pictures of many requests go through the model together.

One thread runs the model, one batch after the other. What arrives in the meantime is the next
batch. The queue is bounded by the time that it takes: whoever comes when it is full is told so.
"""

import contextlib
import dataclasses
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

GATHER_SECONDS = 0.003  # that a batch waits for inputs that are on their way
LONG_BATCH = 0.5  # seconds; no size above is tried, since everybody would wait for it
GAIN = 1.1  # in throughput, that a larger batch must have to be worth its wait


class Busy(Exception):
    """The queue is full; there may be room after `seconds`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f'the queue is full; try again in {math.ceil(seconds)} s')
        self.seconds = seconds


@dataclasses.dataclass(frozen=True, eq=False)
class Work:
    """A function of a batch.

    Args:
      run: inputs → as many results.
      seconds: that a batch takes, by the size that it is padded to.
    """

    run: Callable[[list[Any]], Sequence[Any]]
    seconds: dict[int, float]

    def choose_size(self, waiting: int) -> int:
        """The size that answers most inputs a second, if so many wait."""
        return max(self.seconds, key=lambda size: min(waiting, size) / self.seconds[size])

    @property
    def seconds_each(self) -> float:
        """Seconds for an input, in the best of batches."""
        return min(seconds / size for size, seconds in self.seconds.items())


def measure_work(
    run: Callable[[list[Any]], Sequence[Any]], example: Any, sizes: Sequence[int]
) -> Work:
    """Compiles `run` for each size that is worth it, and measures how long a batch takes.

    Args:
      run: inputs → as many results.
      example: an input.
      sizes: of batches, ascending.
    """
    seconds: dict[int, float] = {}
    for size in sizes:
        batch = [example] * size
        run(batch)
        times = []
        for _ in range(3):
            begun = time.perf_counter()
            run(batch)
            times.append(time.perf_counter() - begun)
            if sum(times) > LONG_BATCH:
                break
        each = min(times) / size
        if not seconds or each * GAIN < min(x / n for n, x in seconds.items()):
            seconds[size] = min(times)
        if min(times) > LONG_BATCH:
            break
    return Work(run, seconds)


class _Job(NamedTuple):
    work: Work
    item: Any
    result: Future[Any]


class Batcher:
    """Runs inputs in batches, in the order in which they came.

    Args:
      max_waiting: inputs that are admitted at a time.
      max_seconds: that those admitted may take; a first one is always admitted.
      on_batch: is told the size of each batch and the seconds that it took.
    """

    def __init__(
        self,
        max_waiting: int,
        max_seconds: float,
        on_batch: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        self._max_waiting, self._max_seconds = max_waiting, max_seconds
        self._on_batch = on_batch
        self._changed = threading.Condition()
        self._admitted: Counter[Work] = Counter()
        self._jobs: deque[_Job] = deque()
        self._closing = False
        self._thread = threading.Thread(target=self._run_batches, name='batches', daemon=True)
        self._thread.start()

    @property
    def num_admitted(self) -> int:
        return self._admitted.total()

    @contextlib.contextmanager
    def admit(self, work: Work, count: int) -> Iterator[None]:
        """Room for inputs until the block ends.

        Raises:
          Busy: if there is none.
        """
        with self._changed:
            self._check_room(work, count)
            self._admitted[work] += count
        try:
            yield
        finally:
            with self._changed:
                self._admitted[work] -= count
                self._changed.notify()

    def check_room(self, work: Work) -> None:
        """Raises Busy if not even one input would be admitted."""
        with self._changed:
            self._check_room(work, 1)

    def _check_room(self, work: Work, count: int) -> None:
        load = sum(work.seconds_each * n for work, n in self._admitted.items())
        too_long = load + work.seconds_each * count > self._max_seconds
        too_many = self.num_admitted + count > self._max_waiting
        if self.num_admitted and (too_long or too_many):
            raise Busy(max(load, 1.0))

    def submit(self, work: Work, item: Any) -> Future[Any]:
        """The result of an admitted input, in future."""
        job = _Job(work, item, Future())
        with self._changed:
            if self._closing:
                raise RuntimeError('expected an open batcher')
            self._jobs.append(job)
            self._changed.notify()
        return job.result

    def close(self) -> None:
        """Ends the thread after all that was submitted."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run_batches(self) -> None:
        while batch := self._next_batch():
            begun = time.perf_counter()
            try:
                results = batch[0].work.run([job.item for job in batch])
            except Exception as error:
                for job in batch:
                    job.result.set_exception(error)
            else:
                for job, result in zip(batch, results, strict=True):
                    job.result.set_result(result)
                self._on_batch(len(batch), time.perf_counter() - begun)

    def _next_batch(self) -> list[_Job]:
        """Waits for jobs; [] at the end. A batch is of one work, that of the first who waits."""
        with self._changed:
            while True:
                idle = not self._jobs
                self._changed.wait_for(lambda: self._jobs or self._closing)
                if idle:
                    self._changed.wait_for(self._is_complete, GATHER_SECONDS)
                if not self._jobs:
                    return []
                work = self._jobs[0].work
                mine = [job for job in self._jobs if job.work is work]
                mine = mine[: work.choose_size(len(mine))]
                taken = {id(job) for job in mine}
                self._jobs = deque(job for job in self._jobs if id(job) not in taken)
                batch = [job for job in mine if job.result.set_running_or_notify_cancel()]
                if batch:
                    return batch

    def _is_complete(self) -> bool:
        """Whether nobody else is on the way, or a largest batch is there."""
        largest = max((max(job.work.seconds) for job in self._jobs), default=1)
        return self._closing or len(self._jobs) >= min(largest, self.num_admitted)
