import csv
import re

import numpy as np
import pytest
from PIL import Image

from vit_jax.errors import InputError
from vit_jax.use.contact_sheet import CELL, MARGIN
from vit_jax.use.evaluate import Evaluation
from vit_jax.use.report import write_report


def evaluation(labels, predicted, class_names, names=None):
    """Of random confidence; each mistake has its own grey."""
    labels, predicted = np.int32(labels), np.int32(predicted)
    confidence = np.random.default_rng(0).uniform(0.5, 1, len(labels)).astype(np.float32)
    right = labels == predicted
    mistakes = np.flatnonzero(~right)
    mistakes = mistakes[np.argsort(-confidence[mistakes])]
    greys = np.arange(len(mistakes), dtype=np.uint8)[:, None, None, None] * 40
    return Evaluation(
        weights='runs/pets, step 70',
        data='folder:pets',
        split='test',
        class_names=class_names,
        num_skipped=2,
        names=names or [f'{i}.jpg' for i in range(len(labels))],
        labels=labels,
        predicted=predicted,
        confidence=confidence,
        true_probability=np.where(right, confidence, 1 - confidence).astype(np.float32),
        loss=np.ones(len(labels), np.float32),
        rank=np.int32(~right),
        mistakes=mistakes,
        mistake_images=greys + np.zeros((8, 8, 3), np.uint8),
    )


def test_report_shows_numbers_confusions_and_every_picture(tmp_path):
    labels, predicted = [0, 0, 0, 0, 1, 1, 1, 2], [0, 1, 1, 2, 1, 1, 0, 2]
    names = ['ape', 'long_haired | yak', 'zebra', 'unseen']
    write_report(evaluation(labels, predicted, names), tmp_path / 'new' / 'report')
    text = (tmp_path / 'new' / 'report' / 'report.md').read_text()
    for line in ('examples | 8', 'skipped | 2', 'accuracy | 50.00%', 'loss | 1.0000'):
        assert f'| {line} |' in text
    assert 'top-5' not in text
    yak = r'long\_haired \| yak'
    rows = re.findall(r'^\| (.*) \|$', text, re.MULTILINE)
    start = rows.index('true class | predicted class | examples | share') + 2
    assert rows[start : start + 3] == [
        f'ape | {yak} | 2 | 50.00%',
        'ape | zebra | 1 | 25.00%',
        f'{yak} | ape | 1 | 33.33%',
    ]
    assert rows[-4:] == [
        'ape | 25.00% | 4',
        f'{yak} | 66.67% | 3',
        'zebra | 100.00% | 1',
        'unseen | – | 0',
    ]
    for name in re.findall(r'!\[.*?\]\((.*?)\)', text):
        with Image.open(tmp_path / 'new' / 'report' / name) as picture:
            assert min(picture.size) > 100
    sheet = np.asarray(Image.open(tmp_path / 'new' / 'report' / 'mistakes.png'))
    greys = [sheet[60, MARGIN + i * (CELL + MARGIN) + 50, 0] for i in range(4)]
    assert greys == [0, 40, 80, 120]


def test_predictions_are_one_line_an_example(tmp_path):
    names = ['a, b.jpg', 'caf\udce9.png', 'c.png']
    result = evaluation([0, 1, 1], [0, 0, 1], ['ape', 'yak'], names)
    write_report(result, tmp_path)
    file = tmp_path / 'predictions.csv'
    with file.open(newline='', encoding='utf-8', errors='surrogateescape') as lines:
        rows = list(csv.DictReader(lines))
    for i, row in enumerate(rows):
        numbers = float(row.pop('probability')), float(row.pop('true_probability'))
        expected = result.confidence[i], result.true_probability[i]
        np.testing.assert_allclose(numbers, expected, rtol=1e-5)
    assert rows == [
        {'example': 'a, b.jpg', 'true': 'ape', 'predicted': 'ape'},
        {'example': 'caf\udce9.png', 'true': 'yak', 'predicted': 'ape'},
        {'example': 'c.png', 'true': 'yak', 'predicted': 'yak'},
    ]


@pytest.mark.filterwarnings('error')  # matplotlib's, when labels do not fit
def test_confusion_matrix_is_drawn_for_two_to_many_classes(tmp_path):
    for count in (2, 100, 300):
        names = [f'a rather long name of a $class$ {i}' for i in range(count)]
        labels = np.arange(3 * count) % count
        predicted = np.where(labels == 1, 0, labels)
        write_report(evaluation(labels, predicted, names), tmp_path / str(count))
        pixels = np.asarray(Image.open(tmp_path / str(count) / 'confusion.png').convert('RGB'))
        dark = (pixels == (8, 48, 107)).all(-1).sum()  # the end of the scale: the diagonal
        assert dark > 1000


def test_no_mistakes_leave_no_old_sheet(tmp_path):
    write_report(evaluation([0, 1], [1, 1], ['ape', 'yak']), tmp_path)
    assert (tmp_path / 'mistakes.png').exists()
    write_report(evaluation([0, 1], [0, 1], ['ape', 'yak']), tmp_path)
    assert not (tmp_path / 'mistakes.png').exists()
    assert 'mistakes.png' not in (tmp_path / 'report.md').read_text()


def test_folder_that_cannot_be_written_raises(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(InputError, match='file/report: the report cannot be written: Not a direc'):
        write_report(evaluation([0, 1], [1, 1], ['ape', 'yak']), tmp_path / 'file' / 'report')
