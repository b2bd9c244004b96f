"""An evaluation as a folder to look at: numbers, pictures, and every prediction."""

import csv
import datetime
import os
import re
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from vit_jax.errors import InputError
from vit_jax.use.contact_sheet import contact_sheet
from vit_jax.use.evaluate import BINS, Evaluation
from vit_jax.use.multi_label import MultiLabelEvaluation
from vit_jax.use.plot import new_figure
from vit_jax.use.split_evaluation import SplitEvaluation

CONFUSIONS = 10  # in the report's table
NUMBERS = 16  # classes up to which the confusion matrix shows counts
NAMES = 100  # classes up to which it shows names
NAME = 30  # characters of a class name in a picture
COLUMNS = 6  # of the contact sheet


def write_report(
    evaluation: Evaluation | MultiLabelEvaluation, folder: str | os.PathLike[str]
) -> None:
    """Writes an evaluation into a folder, over an earlier one.

    `report.md` holds the numbers and shows the pictures `confusion.png`, `reliability.png` and, if
    there are any mistakes, `mistakes.png`; `predictions.csv` has a line for each example. The
    report on multi-label data has no pictures, since no class is taken for another.

    Args:
      evaluation: from `vit_jax.use.evaluate.evaluate`.
      folder: created if it is missing.

    Raises:
      InputError: if it cannot be written.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        if isinstance(evaluation, MultiLabelEvaluation):
            _write_multi_label(evaluation, path)
            return
        _write_predictions(evaluation, path / 'predictions.csv')
        _draw_confusion(evaluation, path / 'confusion.png')
        _draw_reliability(evaluation, path / 'reliability.png')
        (path / 'mistakes.png').unlink(missing_ok=True)
        if len(evaluation.mistakes):
            _draw_mistakes(evaluation, path / 'mistakes.png')
        (path / 'report.md').write_text(_describe(evaluation), 'utf-8')
    except OSError as error:
        raise InputError(f'{folder}: the report cannot be written: {error.strerror}') from None


def _write_predictions(evaluation: Evaluation, path: Path) -> None:
    names = evaluation.class_names
    with _open_csv(path) as file:
        writer = csv.writer(file)
        writer.writerow(['example', 'true', 'predicted', 'probability', 'true_probability'])
        for example, label, predicted, probability, of_true in zip(
            evaluation.names,
            evaluation.labels.tolist(),
            evaluation.predicted.tolist(),
            evaluation.confidence.tolist(),
            evaluation.true_probability.tolist(),
            strict=True,
        ):
            row = example, names[label], names[predicted], f'{probability:.6g}', f'{of_true:.6g}'
            writer.writerow(row)


def _describe(evaluation: Evaluation) -> str:
    """The text of report.md."""
    summary = evaluation.summary()
    headline = {
        'examples': f'{summary["num_examples"]:,}',
        'skipped': f'{summary["num_skipped"]:,}',
        'accuracy': _percent(summary['accuracy']),
        'top-5 accuracy': _percent(summary.get('top_5_accuracy')),
        'loss': f'{summary["loss"]:.4f}',
        'expected calibration error': _percent(summary['expected_calibration_error']),
    }
    if not summary['num_skipped']:
        del headline['skipped']
    if 'top_5_accuracy' not in summary:
        del headline['top-5 accuracy']
    confusions, counts = _confusions(evaluation), evaluation.confusion.sum(axis=1)
    names = evaluation.class_names
    # Classes without examples last, otherwise the worst first.
    worst = sorted(
        summary['per_class'].items(), key=lambda x: (x[1]['accuracy'] is None, x[1]['accuracy'])
    )
    parts = [
        *_title(evaluation),
        _table(['measure', 'value'], headline.items()),
        '## Mistakes',
    ]
    if confusions:
        rows = [
            (names[i], names[j], f'{count:,}', _percent(count / counts[i]))
            for i, j, count in confusions[:CONFUSIONS]
        ]
        parts += [
            'The most frequent, with their share of the true class:',
            _table(['true class', 'predicted class', 'examples', 'share'], rows),
            'The most confident, as the model saw them:',
            '![The most confident mistakes](mistakes.png)',
        ]
    else:
        parts.append('None.')
    parts += [
        '## Confusion matrix',
        '![Confusion matrix](confusion.png)',
        '## Calibration',
        f'The predictions in {BINS} bins of their confidence, the probability of the predicted '
        'class. A perfectly calibrated model follows the diagonal.',
        '![Reliability diagram](reliability.png)',
        '## Classes, worst first',
        _table(
            ['class', 'accuracy', 'examples'],
            [
                (name, _percent(line['accuracy']), f'{line["num_examples"]:,}')
                for name, line in worst
            ],
        ),
        'Every prediction is in [predictions.csv](predictions.csv).',
    ]
    return '\n\n'.join(parts) + '\n'


def _write_multi_label(evaluation: MultiLabelEvaluation, path: Path) -> None:
    summary, names = evaluation.summary(), np.array(evaluation.class_names)
    headline = {
        'examples': f'{summary["num_examples"]:,}',
        'skipped': f'{summary["num_skipped"]:,}',
        'mean average precision': _percent(summary['mean_average_precision']),
        'accuracy (all classes right)': _percent(summary['accuracy']),
        'loss': f'{summary["loss"]:.4f}',
    }
    lines = [
        (name, line['average_precision'], line['num_examples'])
        for name, line in summary['per_class'].items()
    ]
    lines.sort(key=lambda line: (line[1] is None, line[1]))
    rows = [(name, _percent(precision), f'{count:,}') for name, precision, count in lines]
    parts = [
        *_title(evaluation),
        _table(['measure', 'value'], headline.items()),
        '## Classes, worst first',
        _table(['class', 'average precision', 'examples'], rows),
        'Every prediction is in [predictions.csv](predictions.csv).',
    ]
    (path / 'report.md').write_text('\n\n'.join(parts) + '\n', 'utf-8')
    with _open_csv(path / 'predictions.csv') as file:
        writer = csv.writer(file)
        writer.writerow(['example', 'true', 'predicted', *(f'p({name})' for name in names)])
        for example, *several, probabilities in zip(
            evaluation.names,
            evaluation.labels > 0,
            evaluation.predicted,
            evaluation.probabilities.tolist(),
            strict=True,
        ):
            classes = ['|'.join(names[has]) for has in several]
            writer.writerow([example, *classes, *(f'{x:.6g}' for x in probabilities)])


def _title(evaluation: SplitEvaluation) -> list[str]:
    return [
        f'# {_escape(evaluation.weights)}',
        f'On {_escape(evaluation.data)}, split {_escape(evaluation.split)}; '
        f'{datetime.datetime.now():%Y-%m-%d %H:%M}.',
    ]


def _open_csv(path: Path) -> TextIO:
    return path.open('w', newline='', encoding='utf-8', errors='surrogateescape')


def _confusions(evaluation: Evaluation) -> list[tuple[int, int, int]]:
    """(true class, predicted class, how often), the most frequent first."""
    wrong = evaluation.confusion - np.diag(evaluation.confusion.diagonal())
    pairs = [(int(i), int(j), int(wrong[i, j])) for i, j in np.argwhere(wrong)]
    return sorted(pairs, key=lambda pair: -pair[2])


def _draw_confusion(evaluation: Evaluation, path: Path) -> None:
    from matplotlib.colors import PowerNorm

    confusion, names = evaluation.confusion, [_short(name) for name in evaluation.class_names]
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    size = 2.5 + min(max(0.5 * len(names), 2.5), 9.5 if len(names) <= 50 else 16)
    figure = new_figure(size + 1, size)
    axis = figure.subplots()
    norm = PowerNorm(0.5, vmin=0, vmax=1)  # otherwise rare confusions would look like none
    image = axis.imshow(shares, cmap='Blues', norm=norm)
    axis.set(title='Confusion matrix', xlabel='predicted class', ylabel='true class')
    bar = figure.colorbar(image, ax=axis, shrink=0.6, format=lambda value, _: f'{value:.0%}')
    bar.set_label('share of the true class (square-root scale)')
    if len(names) <= NAMES:
        font = {'fontsize': 9 if len(names) <= 25 else 7, 'parse_math': False}
        turned: Any = {'rotation': 90}
        if len(names) <= 50:
            turned = {'rotation': 45, 'rotation_mode': 'anchor', 'ha': 'right'}
        wide = max(map(len, names)) > 3
        axis.set_xticks(range(len(names)), names, **font, **(turned if wide else {}))
        axis.set_yticks(range(len(names)), names, **font)
    if len(names) <= NUMBERS:
        for (row, column), count in np.ndenumerate(confusion):
            color = 'white' if shares[row, column] > 0.35 else 'black' if count else '0.6'
            style: Any = {'ha': 'center', 'va': 'center', 'fontsize': 8, 'color': color}
            axis.text(column, row, f'{count}', **style)
    figure.savefig(path, dpi=120)


def _draw_reliability(evaluation: Evaluation, path: Path) -> None:
    share, accuracy, _ = evaluation.reliability.T
    edges = np.arange(BINS) / BINS
    figure = new_figure(6.0, 7.0)
    upper, lower = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    bars: Any = {'width': 1 / BINS, 'align': 'edge', 'edgecolor': 'white'}
    upper.bar(edges, accuracy, color='#7fb2d8', label='accuracy', **bars)
    upper.plot([0, 1], [0, 1], '--', color='0.2', label='perfectly calibrated')
    error = evaluation.expected_calibration_error
    title = f'Reliability: expected calibration error {error:.1%}'
    upper.set(title=title, ylabel='accuracy', xlim=(0, 1), ylim=(0, 1))
    upper.legend(loc='upper left', frameon=False)
    lower.bar(edges, share, color='0.6', **bars)
    lower.set(xlabel='confidence: probability of the predicted class', ylabel='share of examples')
    for axis in (upper, lower):
        axis.yaxis.set_major_formatter(lambda value, _: f'{value:.0%}')
        axis.spines[['top', 'right']].set_visible(False)
    lower.xaxis.set_major_formatter(lambda value, _: f'{value:.0%}')
    figure.savefig(path, dpi=120)


def _draw_mistakes(evaluation: Evaluation, path: Path) -> None:
    names = evaluation.class_names
    captions = [
        (
            f'is {names[evaluation.labels[i]]}',
            f'{evaluation.confidence[i]:.0%} {names[evaluation.predicted[i]]}',
            os.path.basename(evaluation.names[i]).rpartition(', ')[-1],  # a file or 'example 7'
        )
        for i in evaluation.mistakes
    ]
    title = (
        'The most confident mistakes: true class; probability and class predicted; file or number'
    )
    contact_sheet(evaluation.mistake_images, captions, COLUMNS, title).save(path)


def _table(header: list[str], rows: Any) -> str:
    """A Markdown table; columns are names if they are called classes, numbers otherwise."""
    lines = [header, ['--' if title.endswith(('class', 'measure')) else '--:' for title in header]]
    lines += [[_escape(cell) for cell in row] for row in rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _escape(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r'([\\`*_\[\]<>|#&~$])', r'\\\1', text)


def _percent(share: float | None) -> str:
    return '–' if share is None else f'{share:.2%}'


def _short(name: str) -> str:
    return name if len(name) <= NAME else name[: NAME - 1] + '…'
