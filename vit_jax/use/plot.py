"""Curves of runs: loss, accuracy, learning rate and speed over the steps."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vit_jax.errors import InputError
from vit_jax.run.metrics import read_metrics
from vit_jax.run.storage import open_path

PANELS = {
    'loss': 'loss',
    'accuracy': 'accuracy',
    'learning_rate': 'learning rate',
    'images_per_second': 'images/s',
}
WINDOWS = 20  # of smoothing in a curve


def plot(
    runs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], output: str | os.PathLike[str]
) -> list[str]:
    """Draws the metrics of runs into a picture.

    Loss and accuracy in training are smoothed, over a pale line of what was logged; those on the
    test split are points, and of the moving average crosses. The learning rate has a logarithmic
    axis if those of the runs differ by a factor of 10 or more.

    Args:
      runs: a run directory, or several.
      output: a file that matplotlib can write, such as `.png`, `.svg` or `.pdf`.

    Returns:
      Notes on the runs that have no metrics yet and are left out.

    Raises:
      InputError: if a folder is no run, none has metrics, or the file cannot be written.
    """
    runs = [runs] if isinstance(runs, str | os.PathLike) else runs
    read = {str(run): _read(run) for run in runs}
    notes = [f'{run}: the run has no metrics yet' for run in read if not read[run]]
    lines = {run: metrics for run, metrics in read.items() if metrics}
    if not lines:
        raise InputError('; '.join(notes))
    figure = new_figure(11.0, 7.5)
    if (kind := Path(output).suffix[1:].lower()) not in figure.canvas.get_supported_filetypes():
        raise InputError(f'{output}: expected a picture file such as curves.png')
    axes: Any = figure.subplots(2, 2)
    for axis, (name, label) in zip(axes.flat, PANELS.items(), strict=True):
        axis.set(xlabel='step', ylabel=label)
        axis.grid(alpha=0.3)
        axis.spines[['top', 'right']].set_visible(False)
        for number, (run, metrics) in enumerate(lines.items()):
            color = f'C{number % 10}'
            steps, values = _series(metrics, 'train', name)
            if name in ('loss', 'accuracy'):
                axis.plot(steps, values, color=color, alpha=0.3, linewidth=1)
                values = _smooth(values)
                axis.plot(*_series(metrics, 'test', name), 'o:', color=color, markersize=5)
                axis.plot(*_series(metrics, 'test', f'ema_{name}'), 'x:', color=color, markersize=5)
            axis.plot(steps, values, color=color, linewidth=2, label=run)
    axes[0, 1].yaxis.set_major_formatter(lambda value, _: f'{value:.0%}')
    axes[1, 1].set_ylim(bottom=0)
    peaks = [max(_series(x, 'train', 'learning_rate')[1], default=0.0) for x in lines.values()]
    if max(peaks) >= 10 * min(peaks) > 0:
        axes[1, 0].set_yscale('log')
        axes[1, 0].set_ylim(bottom=1e-3 * min(peaks))  # they end at zero
    axes[0, 0].plot([], [], color='grey', linewidth=2, label='training')
    if any(len(_series(metrics, 'train', 'loss')[0]) > WINDOWS for metrics in lines.values()):
        label = 'training, before smoothing'
        axes[0, 0].plot([], [], color='grey', alpha=0.4, linewidth=1, label=label)
    axes[0, 0].plot([], [], 'o:', color='grey', markersize=5, label='test split')
    if any('ema_loss' in line for metrics in lines.values() for line in metrics):
        axes[0, 0].plot([], [], 'x:', color='grey', markersize=5, label='moving average')
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower center', ncols=3)
    try:
        figure.savefig(output, dpi=120, format=kind)
    except OSError as error:
        raise InputError(f'{output}: cannot be written: {error.strerror}') from None
    return notes


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib figure, in inches."""
    # Not pyplot, which would choose a window system.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout='constrained')
    FigureCanvasAgg(figure)
    return figure


def _read(run: str | os.PathLike[str]) -> list[dict[str, Any]]:
    path = open_path(run)
    if not (path / 'metrics.jsonl').is_file():
        missing = 'it has no metrics.jsonl' if path.exists() else 'there is none'
        raise InputError(f'{run}: expected a run directory, but {missing}')
    return read_metrics(path / 'metrics.jsonl')


def _series(lines: list[dict[str, Any]], split: str, name: str) -> tuple[list[int], list[float]]:
    """Steps, and a metric's values after them."""
    there = [line for line in lines if line['split'] == split and name in line]
    return [line['step'] for line in there], [line[name] for line in there]


def _smooth(values: Sequence[float]) -> list[float]:
    """An exponential moving average over about a twentieth of the values, without bias."""
    decay = 1 - 1 / max(1.0, len(values) / WINDOWS)
    sums = weights = 0.0
    smoothed = []
    for value in values:
        sums, weights = decay * sums + value, decay * weights + 1
        smoothed.append(sums / weights)
    return smoothed
