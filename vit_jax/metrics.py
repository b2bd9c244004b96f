"""What a run tells while it goes on: metrics.jsonl, TensorBoard, and the terminal."""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter
from tqdm import tqdm


class MetricsWriter:
    """Appends to `metrics.jsonl`, one object a line, and to `tensorboard/`.

    Lines later than `first_step` come from a run that was cut off before it saved that far; they
    are dropped, since those steps are about to be done again.

    Args:
      run_directory: which has to exist.
      first_step: number of steps that the run has behind it.
    """

    def __init__(self, run_directory: Path, first_step: int) -> None:
        path = run_directory / 'metrics.jsonl'
        self.lines = [line for line in read_metrics(path) if line['step'] <= first_step]
        temporary = path.with_name(path.name + '.tmp')
        temporary.write_text(''.join(json.dumps(line) + '\n' for line in self.lines))
        temporary.replace(path)
        self._file = path.open('a')
        self._tensorboard = SummaryWriter(
            str(run_directory / 'tensorboard'), purge_step=first_step + 1
        )

    def close(self) -> None:
        self._file.close()
        self._tensorboard.close()

    def write(self, step: int, split: str, metrics: dict[str, float]) -> None:
        """Writes one line; it is in the file when this returns."""
        self.lines.append({'step': step, 'split': split, **metrics})
        self._file.write(json.dumps(self.lines[-1]) + '\n')
        self._file.flush()
        for name, value in metrics.items():
            self._tensorboard.add_scalar(f'{split}/{name}', value, step)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`, up to one that was cut off while it was written."""
    lines = []
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


class Reporter:
    """Tells files and terminal how a run goes: a bar on a terminal, plain lines elsewhere.

    Args:
      run_directory: which has to exist.
      first_step: number of steps that the run has behind it.
      num_steps: of the whole run.
      batch_size: examples a step.
      log_every_steps: period of the training lines; 0 for only the last step's.
      learning_rate: of the step that follows so many steps.
    """

    def __init__(
        self,
        run_directory: Path,
        *,
        first_step: int,
        num_steps: int,
        batch_size: int,
        log_every_steps: int,
        learning_rate: Callable[[int], Any],
    ) -> None:
        self._writer = MetricsWriter(run_directory, first_step)
        self._num_steps = num_steps
        self._batch_size = batch_size
        self._log_every_steps = log_every_steps
        self._learning_rate = learning_rate
        self._window: list[dict[str, float]] = []  # of the steps since the last line
        self._clock: float | None = None  # runs from the end of the first step, which compiles
        self._timed_steps = 0
        self._waited = 0.0  # seconds of the clock's that went by without a batch
        self._bar = tqdm(
            initial=first_step,
            total=num_steps,
            disable=not sys.stderr.isatty(),
            dynamic_ncols=True,
            bar_format='{percentage:3.0f} % |{bar}| {n_fmt}/{total_fmt}{postfix}, {remaining} left',
        )

    def __enter__(self) -> 'Reporter':
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        self._writer.close()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time in it as waiting for data, 'data_wait' in the training lines."""
        begun = time.perf_counter()
        yield
        self._waited += time.perf_counter() - begun

    def train(self, step: int, metrics: dict[str, float]) -> None:
        """Takes the metrics of one step, in order; every so often writes the mean of many."""
        if self._clock is None:
            self.restart_clock()
        else:
            self._timed_steps += 1
        self._window.append(metrics)
        shown = show_speed(self._speed())
        self._bar.set_postfix_str(f'loss {metrics["loss"]:.3f}{shown}', False)
        self._bar.update()
        if is_due(step, self._log_every_steps, self._num_steps):
            speed = self._speed()
            self.restart_clock()
            means = {
                name: sum(metrics[name] for metrics in self._window) / len(self._window)
                for name in metrics
            }
            means['learning_rate'] = float(self._learning_rate(step - 1))
            self._tell(step, 'train', means | speed)
            self._window = []

    def test(self, step: int, metrics: dict[str, float]) -> None:
        """Writes the metrics of an evaluation."""
        self._tell(step, 'test', metrics)

    @property
    def lines(self) -> list[dict[str, Any]]:
        """All lines of `metrics.jsonl`."""
        return self._writer.lines

    def was_tested(self, step: int) -> bool:
        """Whether the last line is an evaluation after so many steps."""
        return any(line['step'] == step and line['split'] == 'test' for line in self.lines[-1:])

    def restart_clock(self) -> None:
        """Leaves out of images/s what has passed since the last step."""
        self._clock = time.perf_counter()
        self._timed_steps = 0
        self._waited = 0.0

    def _speed(self) -> dict[str, float]:
        if self._clock is None or not self._timed_steps:
            return {}
        seconds = time.perf_counter() - self._clock
        return {
            'images_per_second': self._timed_steps * self._batch_size / seconds,
            'data_wait': self._waited / seconds,
        }

    def _tell(self, step: int, split: str, metrics: dict[str, float]) -> None:
        self._writer.write(step, split, metrics)
        width = len(str(self._num_steps))
        text = f'step {step:{width}}/{self._num_steps}  {split:5}  loss {metrics["loss"]:.4f}'
        text += f', accuracy {metrics["accuracy"]:.2%}'
        tqdm.write(text + show_speed(metrics))


def show_speed(metrics: dict[str, float]) -> str:
    """The 'images_per_second' among metrics for a person; nothing where it is not known."""
    speed = metrics.get('images_per_second')
    return '' if speed is None else f', {speed:,.0f} images/s'


def is_due(step: int, every_steps: int, num_steps: int) -> bool:
    """Whether something with this period happens after `step` steps; after the last, always."""
    return step == num_steps or (every_steps > 0 and step % every_steps == 0)
