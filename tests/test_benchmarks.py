"""The benchmarks run, at toy size: their numbers mean nothing here."""

import json

import processes
import pytest
from PIL import Image
from processes import ROOT
from sklearn.datasets import load_sample_image

pytestmark = pytest.mark.slow


def run(script, output, *options):
    script = ROOT / 'benchmarks' / script
    printed, _ = processes.run(script, '--toy', '--output', output, *options, torch=True)
    markdown = output.with_suffix('.md').read_text()
    assert markdown.strip() in printed
    return json.loads(output.read_text()), markdown


def test_accelerator_writes_its_table_without_jaxtyping(tmp_path, monkeypatch):
    """It is copied to machines on which nothing can be installed."""
    (tmp_path / 'sitecustomize.py').write_text("import sys; sys.modules['jaxtyping'] = None")
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    result, markdown = run('accelerator.py', tmp_path / 'new' / 'accelerator.json')
    assert result['device'] and result['machine']['versions']['jax']
    rows = [row for row in result['rows'] if 'error' not in row]
    ours = [row for row in rows if row['racer'] == 'vit_jax']
    assert len(ours) >= 4
    assert {(row['unroll'], row['remat']) for row in ours} >= {
        (1, 'dots'),
        (2, 'dots'),
        (1, 'full'),
    }
    for row in ours:
        assert row['variant'] == 'toy' and row['batch'] == 4 and row['attention'] == 'xla'
        assert row['peak_bytes'] > 1e5 and row['compile_seconds'] > 0
        images = row['images_per_second'] * row['step_seconds']
        assert abs(images - row['batch']) < 1e-6 and 0 < row['mfu'] < 1
    shares = [row['mfu'] for row in rows]
    assert shares == sorted(shares, reverse=True)
    assert result['rows'][: len(rows)] == rows  # failed rows come last, with their error
    assert all(row.get('attention') == 'cudnn' for row in result['rows'][len(rows) :])
    lines = [line for line in markdown.splitlines() if line.startswith('| toy')]
    assert len(lines) == len(result['rows'])


def test_race_writes_its_table(tmp_path):
    result, markdown = run('race.py', tmp_path / 'race.json')
    racers = result['races']['toy']['racers']
    assert set(racers) == {'vit_jax', 'plain linen'}
    for racer in racers.values():
        for what in ('train', 'infer'):
            assert len(racer['seconds'][what]) == 2 and min(racer['seconds'][what]) > 0
            assert racer['first_seconds'][what] > racer['compile_seconds'][what] > 0
        assert racer['peak_bytes'] > 1e8
    assert markdown.count('| toy: ') == 4


def test_input_pipeline_writes_its_table(tmp_path):
    photographs = tmp_path / 'photographs'
    china = Image.fromarray(load_sample_image('china.jpg'))
    for name in 'abcdefgh':
        (photographs / name).mkdir(parents=True)
        for i in range(8):
            china.crop((8 * i, 0, 300 + 8 * i, 300)).save(photographs / name / f'{i}.jpg')
    result, _ = run('input_pipeline.py', tmp_path / 'a.json', '--photographs', photographs)
    (race,) = result['photographs'].values()
    ours, theirs = (race['images_per_second'][name][0] for name in ('vit_jax', 'tf.data'))
    assert race['ratio'] == ours / theirs > 0
    assert all(0 <= share <= 1 for share in result['data_wait'].values())
    assert len(result['resident_mib_by_epoch']) == 12
    assert min(result['gather'].values()) > 0


def test_damaged_run_directories_never_give_other_numbers(tmp_path, data_dir):
    command = [ROOT / 'benchmarks' / 'damage.py', '--cases', 8, '--data-dir', data_dir]
    _, errors = processes.run(*command, '--output', tmp_path / 'damage.json')
    result = json.loads((tmp_path / 'damage.json').read_text())
    assert result['failures'] == [] and sum(result['ends'].values()) == 4 * 8
    assert 'Traceback' not in errors


def test_serving_writes_its_table(tmp_path):
    result, _ = run('serving.py', tmp_path / 'serving.json')
    assert result['failures'] == []
    assert result['load']['ends'].keys() == {'200'} and result['overload']['ends']['503'] > 0
    assert result['end']['ends']['refused'] == 64 and result['ratio'] > 0
    assert sum(result['malformed']['ends'].values()) == 200
