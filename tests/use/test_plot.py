import json

import numpy as np
import pytest
from PIL import Image

from vit_jax.__main__ import main
from vit_jax.use.plot import _smooth, plot


def write_run(folder, losses):
    folder.mkdir(parents=True)
    rates = {'learning_rate': 0.1, 'images_per_second': 5.0}
    lines = [
        {'step': step, 'split': split, 'loss': loss, 'accuracy': 1 / (1 + loss), **more}
        for step, loss in enumerate(losses, 1)
        for split, more in (('train', rates), ('test', {}))
    ]
    (folder / 'metrics.jsonl').write_text(''.join(json.dumps(line) + '\n' for line in lines))
    return str(folder)


def test_draws_several_runs(tmp_path):
    """One more run adds its own colour."""
    ends = {'first': 1, 'second': 2}
    runs = [write_run(tmp_path / name, np.linspace(3, end, 50)) for name, end in ends.items()]
    colors = []
    for number in (1, 2):
        output = tmp_path / f'{number}.png'
        assert main(['plot', *runs[:number], '-o', str(output)]) == 0
        pixels = np.asarray(Image.open(output).convert('RGB')).reshape(-1, 3)
        orange = (pixels == (255, 127, 14)).all(axis=1).sum()  # matplotlib's second colour
        colors.append(orange > 1000)
    assert colors == [False, True]


def test_a_run_without_metrics_is_left_out(tmp_path, capsys):
    write_run(tmp_path / 'run', [1.0])
    write_run(tmp_path / 'empty', [])
    output = tmp_path / 'curves.png'
    assert main(['plot', *map(str, tmp_path.iterdir()), '-o', str(output)]) == 0
    assert output.exists()
    assert capsys.readouterr().err == f'{tmp_path}/empty: the run has no metrics yet; left out\n'
    assert plot(tmp_path / 'run', output) == []  # a single run


def test_smoothing_keeps_a_constant_and_follows_a_change():
    np.testing.assert_allclose(_smooth([2.0] * 100), 2.0)
    smoothed = _smooth([0.0] * 100 + [1.0] * 100)
    assert (np.diff(smoothed[99:]) > 0).all() and 0.99 < smoothed[-1] < 1
    np.testing.assert_array_equal(_smooth([3.0, 1.0]), [3.0, 1.0])


@pytest.mark.parametrize(
    'run, output, message',
    [
        ('nowhere', 'a.png', 'nowhere: expected a run directory'),
        ('empty', 'a.png', 'empty: the run has no metrics yet'),
        ('run', 'a.txt', 'a.txt: expected a picture file such as curves.png'),
        ('run', 'nowhere/a.png', 'nowhere/a.png: cannot be written: No such file'),
    ],
)
def test_wrong_input_is_one_line(run, output, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / 'run', [1.0])
    write_run(tmp_path / 'empty', [])
    assert main(['plot', run, '-o', output]) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and error.startswith(f'vit_jax: {message}')
