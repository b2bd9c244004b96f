"""Progress of a run, on the terminal and in the files of `vit_jax.run.metrics`."""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from vit_jax.parallel.distributed import agreed, is_first
from vit_jax.run.json_files import write_json
from vit_jax.run.machine import device_memory, peak_flops
from vit_jax.run.metrics import MetricsWriter
from vit_jax.run.quality import show_quality
from vit_jax.run.storage import AnyPath
from vit_jax.run.wandb_run import WandbRun

ESTIMATE = 10  # seconds of training without a line after which the time left is estimated


class Reporter:
    """Reports the metrics of a run: a progress bar on a terminal, plain lines elsewhere.

    The metrics of a step are fetched one step late, so that the device is never idle: `train` takes
    those of the step that was just dispatched and reports those of the step before.

    Args:
      run_directory: an existing folder.
      first_step: number of steps already done.
      num_steps: of the whole run.
      batch_size: examples per step.
      log_every_steps: steps between training lines; 0 for a line at the last step only.
      max_loss: a larger loss raises Diverged.
      examples: steps done → the places of the next step's examples in the training split.
      epochs: steps done → passes over the training split.
      learning_rate: schedule: steps done → learning rate of the next step.
      flops: of training on one image.
      stop_reason: lines of `metrics.jsonl` → why the run ends after an evaluation; None if not.
      wandb_run: gets the metrics too.
    """

    def __init__(
        self,
        run_directory: AnyPath,
        *,
        first_step: int,
        num_steps: int,
        batch_size: int,
        log_every_steps: int,
        max_loss: float,
        examples: Callable[[int], np.ndarray],
        epochs: Callable[[int], float],
        learning_rate: Callable[[int], Any],
        flops: int,
        stop_reason: Callable[[list[dict[str, Any]]], str | None] = lambda lines: None,
        wandb_run: WandbRun | None = None,
    ) -> None:
        self._writer = MetricsWriter(run_directory, first_step)
        self._wandb_run = wandb_run
        self._num_steps = num_steps
        self._batch_size = batch_size
        self._log_every_steps = log_every_steps
        self._max_loss = max_loss
        self._examples = examples
        self._epochs = epochs
        self._run_directory = run_directory
        self._learning_rate = learning_rate
        self._flops = flops
        self._stop_reason = stop_reason
        self.ends_early: str | None = None  # why the run ends before its last step
        self._peak = jax.device_count() * peak_flops(jax.devices()[0].device_kind)
        self._saved = 0.0  # seconds that saves took since the last line
        learning_rate(first_step)  # compiles now, not between two steps
        self._pending: tuple[int, Any] | None = None  # the last step and its metrics on the device
        self._window: list[dict[str, float]] = []  # metrics of the steps since the last line
        self._clock: float | None = None  # set at the end of the first step, which compiles
        self._timed_steps = 0  # since the clock was set
        self._waited = 0.0  # seconds spent waiting for batches since the clock was set
        self._paused = False  # whether the run has evaluated since the last step
        self._estimated = False  # whether the time left was printed before the first line
        in_notebook = _in_notebook()
        self._bar = tqdm(
            initial=first_step,
            total=num_steps,
            # In a notebook, a bar is replaced only by what follows on the same output.
            file=sys.stdout if in_notebook else sys.stderr,
            disable=not (is_first() and (in_notebook or sys.stderr.isatty())),
            dynamic_ncols=True,
            bar_format='{percentage:3.0f} % |{bar}| {n_fmt}/{total_fmt}{postfix}, {remaining} left',
        )

    def __enter__(self) -> 'Reporter':
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        self._writer.close()
        if self._wandb_run:
            self._wandb_run.close()

    @property
    def lines(self) -> list[dict[str, Any]]:
        """All lines of `metrics.jsonl`."""
        return self._writer.lines

    def timed(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The same batches, up to an early end; 'data_wait' is the share of time spent waiting."""
        while not self.ends_early:
            if self._paused:  # evaluations and saves do not count as time between steps
                self._restart_clock()
                self._paused = False
            begun = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                return
            self._waited += time.perf_counter() - begun
            yield batch
        tqdm.write(self.ends_early)

    def train(self, step: int, metrics: Any) -> None:
        """Takes the metrics of a step that may still be running; reports those of the one before.

        Raises:
          Diverged: if the metrics to report show that the run has failed.
        """
        self.flush()
        self._pending = step, metrics

    def flush(self) -> None:
        """Waits for the last step and reports its metrics.

        Raises:
          Diverged: see `train`.
        """
        if self._pending is None:
            return
        step, pending = self._pending
        self._pending = None
        metrics = self._fetch(step, pending)
        if self._clock is None:
            self._restart_clock()
        else:
            self._timed_steps += 1
        self._window.append(metrics)
        if self._bar.disable and not (self._estimated or self.lines):
            self._estimate(step)
        shown = show_speed(self._speed())
        self._bar.set_postfix_str(f'loss {metrics["loss"]:.3f}{shown}', False)
        self._bar.update()
        if is_due(step, self._log_every_steps, self._num_steps):
            speed = self._speed()
            self._restart_clock()
            means = {
                name: sum(window[name] for window in self._window) / len(self._window)
                for name in metrics
            }
            means['learning_rate'] = float(self._learning_rate(step - 1))
            if self._saved:
                means['save_seconds'] = self._saved
            if (held := device_memory()) is not None:
                means['device_gib'] = held / 2**30
            self._report(step, 'train', means | speed)
            self._window = []
            self._saved = 0.0

    def test(self, step: int, metrics: Any) -> None:
        """Reports an evaluation after `step` steps, if that is not the last line already.

        Raises:
          Diverged: see `train`.
        """
        self.flush()
        line = {'step': step, 'split': 'test', 'epoch': self._epochs(step), **metrics}
        if self.lines[-1:] != [line]:
            self._report(step, 'test', self._fetch(step, metrics))
        self._paused = True
        if step < self._num_steps:
            self.ends_early = agreed(self._stop_reason(self.lines))

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """Around what a save keeps the run from doing; it becomes 'save_seconds'."""
        begun = time.perf_counter()
        yield
        self._saved += time.perf_counter() - begun

    def _restart_clock(self) -> None:
        self._clock = time.perf_counter()
        self._timed_steps = 0
        self._waited = 0.0

    def _speed(self) -> dict[str, float]:
        if self._clock is None or not self._timed_steps:
            return {}
        seconds = time.perf_counter() - self._clock
        images_per_second = self._timed_steps * self._batch_size / seconds
        speed = {
            'images_per_second': images_per_second,
            'step_seconds': seconds / self._timed_steps,
            'data_wait': self._waited / seconds,
        }
        if self._peak:
            speed['mfu'] = images_per_second * self._flops / self._peak
        return speed

    def _estimate(self, step: int) -> None:
        """Prints the time left if the first line is still far away."""
        if self._clock is None or not self._timed_steps:
            return
        seconds = time.perf_counter() - self._clock
        if seconds > ESTIMATE:
            pace = seconds / self._timed_steps
            left = tqdm.format_interval((self._num_steps - step) * pace)
            print(f'step {step:,} of {self._num_steps:,}: {pace:.3g} s a step, {left} left')
            self._estimated = True

    def _fetch(self, step: int, metrics: Any) -> dict[str, float]:
        """Brings a step's metrics to the host; writes `diverged.json` before it raises Diverged."""
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        wrong = [f'{name} is {value}' for name, value in values.items() if not math.isfinite(value)]
        if values['loss'] > self._max_loss:
            wrong.append(f'loss is {values["loss"]:.4g}, above max_loss={self._max_loss:g}')
        if wrong:
            examples = self._examples(step - 1).tolist()
            content = {'step': step, 'reason': wrong[0], 'examples': examples}
            if is_first():
                write_json(self._run_directory / 'diverged.json', content)
            raise Diverged(step, wrong[0])
        return values

    def _report(self, step: int, split: str, metrics: dict[str, float]) -> None:
        self._writer.write(step, split, {'epoch': self._epochs(step), **metrics})
        if self._wandb_run:
            self._wandb_run.write(self.lines[-1])
        width = len(str(self._num_steps))
        text = f'step {step:{width}}/{self._num_steps}  {split:5}  loss {metrics["loss"]:.4f}'
        text += f', {show_quality(metrics)}'
        if speed := metrics.get('images_per_second'):
            left = (self._num_steps - step) * self._batch_size / speed
            text += f'{show_speed(metrics)}, {tqdm.format_interval(left)} left'
        tqdm.write(text)


def _in_notebook() -> bool:
    ipython = sys.modules.get('IPython')
    return ipython is not None and hasattr(ipython.get_ipython(), 'kernel')


def show_speed(metrics: dict[str, float]) -> str:
    """'images_per_second' and 'mfu' as text; empty if they are unknown."""
    speed, mfu = metrics.get('images_per_second'), metrics.get('mfu')
    text = '' if speed is None else f', {speed:,.0f} images/s'
    return text if mfu is None else f'{text}, MFU {mfu:.0%}'


def is_due(step: int, every_steps: int, num_steps: int) -> bool:
    """Whether a periodic event is due after `step` steps; after the last, it always is."""
    return step >= num_steps or (step > 0 and every_steps > 0 and step % every_steps == 0)


class Diverged(FloatingPointError):
    """A step whose metrics show that the run has failed.

    Args:
      step: its number, from 1.
      reason: the metric and its value.
    """

    def __init__(self, step: int, reason: str) -> None:
        super().__init__(
            f'step {step}: {reason}; the step was not saved, its examples are in diverged.json; '
            f'try a lower optim.learning_rate, a longer warm-up or optim.clip_norm'
        )
