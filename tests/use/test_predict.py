import csv
import io
import itertools
import json
import shutil
import threading

import jax.numpy as jnp
import numpy as np
import processes
import pytest
from conftest import count_traces
from PIL import Image

import vit_jax
from vit_jax.__main__ import main
from vit_jax.errors import InputError
from vit_jax.run.metrics import read_metrics
from vit_jax.train.trainer import train
from vit_jax.use.predict import BATCH_SIZES


@pytest.fixture(scope='module')
def run_directory(data_dir, tmp_path_factory):
    from configs import digits

    config = digits.get_config()
    config.num_steps, config.batch_size = 60, 64
    config.eval_every_steps, config.checkpoint_every_steps = 0, 30
    config.data.dir = data_dir
    config.model.dim, config.model.depth, config.model.patch_size = 32, 1, 4
    config.optim.learning_rate, config.optim.warmup_steps = 5e-3, 5
    run_directory = tmp_path_factory.mktemp('run')
    train(config, str(run_directory))
    return run_directory


@pytest.fixture(scope='module')
def predictor(run_directory):
    return vit_jax.Predictor(run_directory)


@pytest.fixture(scope='module')
def test_examples(data_dir):
    from vit_jax.data.preprocess import Preprocessing
    from vit_jax.data.sources import open_source, open_split

    source = open_source('tfds:digits', data_dir)
    return open_split(source, 'test', Preprocessing((8, 8), 1, (0.5,), (0.5,)))


def test_predictor_has_the_accuracy_in_metrics_jsonl(predictor, run_directory, test_examples):
    line = read_metrics(run_directory / 'metrics.jsonl')[-1]
    probabilities = predictor(test_examples.images)
    assert probabilities.shape == (360, 10) and probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)
    accuracy = (probabilities.argmax(-1) == test_examples.labels).mean()
    assert accuracy == pytest.approx(line['accuracy'])
    assert accuracy > 0.3  # better than chance, so the classes are in the right order


def test_probabilities_are_the_softmax_of_the_logits(predictor, run_directory, test_examples):
    model, variables = vit_jax.load_weights(run_directory)
    images = (test_examples.images[:5] / 255 - 0.5) / 0.5
    logits = np.float64(model.apply(variables, jnp.asarray(images, jnp.float32)))
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(predictor(test_examples.images[:5]), expected, atol=1e-5)


def test_any_number_of_images_compiles_once_per_batch_size(
    run_directory, test_examples, monkeypatch
):
    traced = count_traces(monkeypatch, 'probabilities')
    predictor = vit_jax.Predictor(run_directory)
    whole = predictor(test_examples.images)
    for count in (0, 1, 2, 3, 15, 16, 17, 100, 128, 129, 300):
        part = predictor(test_examples.images[:count])
        assert part.shape == (count, 10)
        np.testing.assert_allclose(part, whole[:count], atol=1e-6)
    assert len(traced) == len(BATCH_SIZES)


def test_every_kind_of_picture_is_accepted(predictor, test_examples, tmp_path):
    image = test_examples.images[0]
    path = tmp_path / 'digit.png'
    Image.fromarray(image[..., 0]).save(path)
    expected = predictor(image[None])
    picture = Image.open(path)
    for images in ([path], [str(path)], [picture], [picture.convert('RGB')], [image[..., 0]]):
        np.testing.assert_array_equal(predictor(images), expected)
    large = picture.resize((80, 80), Image.Resampling.NEAREST)
    np.testing.assert_allclose(predictor([large]), expected, atol=0.02)
    mixed = predictor([large, path])
    assert mixed.shape == (2, 10)


def test_top_k_is_sorted_and_named(predictor, test_examples):
    images = test_examples.images[:3]
    probabilities = predictor(images)
    assert predictor.class_names == list('0123456789')
    for row, classes in zip(probabilities, predictor.top_k(images, k=3), strict=True):
        assert [value for _, value in classes] == sorted(row.tolist(), reverse=True)[:3]
        assert all(row[int(name)] == value for name, value in classes)


@pytest.fixture(scope='module')
def paths(test_examples, tmp_path_factory):
    """300 pictures: two whole chunks and a part."""
    folder = tmp_path_factory.mktemp('pictures')
    for i, image in enumerate(test_examples.images[:300]):
        Image.fromarray(image[..., 0]).save(folder / f'{i:03}.png')
    return [str(folder / f'{i:03}.png') for i in range(300)]


@pytest.mark.parametrize('on_error', ['raise', 'skip'])
def test_stream_equals_top_k_of_the_whole_list(predictor, paths, on_error):
    streamed = list(predictor.stream(iter(paths), 3, on_error))
    assert streamed == list(zip(paths, predictor.top_k(paths, 3), strict=True))


def test_stream_yields_errors_or_stops_at_the_first(predictor, paths, tmp_path):
    (tmp_path / 'text.png').write_text('not a picture')
    bad = [str(tmp_path / name) for name in ('text.png', 'nothing.png')]
    mixed = [*paths[:5], bad[0], *paths[5:140], bad[1], *paths[140:]]
    streamed = dict(predictor.stream(mixed, 1, on_error='skip'))
    errors = {path: streamed.pop(path) for path in bad}
    assert 'text.png: expected a picture' in str(errors[bad[0]])
    assert 'nothing.png: no such file' in str(errors[bad[1]])
    expected = dict(zip(paths, predictor.top_k(paths, 1), strict=True))
    assert {path: name for path, [(name, _)] in streamed.items()} == {
        path: name for path, [(name, _)] in expected.items()
    }
    before = []
    with pytest.raises(InputError, match='nothing.png: no such file'):
        for path, _ in predictor.stream([*paths[:135], bad[1], *paths], 1):
            before.append(path)
    assert before == paths[:135]


def test_stream_takes_endless_pictures_in_bounded_memory(predictor, test_examples):
    taken = []

    def endless():
        for i in itertools.count():
            taken.append(i)
            yield test_examples.images[i % 360]

    stream = predictor.stream(endless(), 1)
    for _ in range(400):
        next(stream)
    assert len(taken) <= 400 + 3 * BATCH_SIZES[-1]
    stream.close()
    assert not [thread for thread in threading.enumerate() if 'ThreadPool' in thread.name]


def test_stream_refuses_a_single_picture_and_wrong_options(predictor, paths):
    for options, message in (
        ((paths[0],), 'put it in a list'),
        ((paths, 0), 'k: expected at least 1, got 0'),
        ((paths, 1, 'ignore'), "on_error: expected 'raise' or 'skip', got 'ignore'"),
    ):
        with pytest.raises(InputError, match=message):
            next(predictor.stream(*options))


@pytest.mark.parametrize(
    'images, message',
    [
        ('digit.png', 'put it in a list'),
        ([np.zeros((8, 8), np.float32)], 'expected uint8'),
        (np.zeros((2, 8, 8, 2), np.uint8), 'expected uint8'),
        (np.zeros((8, 8, 1), np.uint8), 'put a single picture in a list'),
        (['nothing.png'], 'nothing.png: no such file'),
    ],
)
def test_invalid_pictures_raise(predictor, images, message):
    with pytest.raises(InputError, match=message):
        predictor(images)


def test_step_selects_a_checkpoint_by_name_or_number(run_directory, test_examples):
    newest = vit_jax.Predictor(run_directory)(test_examples.images)
    lines = read_metrics(run_directory / 'metrics.jsonl')
    tests = {line['step']: line['accuracy'] for line in lines if line['split'] == 'test'}
    best = max(tests, key=lambda step: (tests[step], step))
    for step in (best, 'best'):
        probabilities = vit_jax.Predictor(run_directory, step=step)(test_examples.images)
        accuracy = (probabilities.argmax(-1) == test_examples.labels).mean()
        assert accuracy == pytest.approx(tests[best])
    np.testing.assert_array_equal(
        vit_jax.Predictor(run_directory, step=60)(test_examples.images), newest
    )
    with pytest.raises(InputError, match='no checkpoint 7; expected newest, best or one of .*60'):
        vit_jax.Predictor(run_directory, step=7)


def test_folders_without_a_run_raise(run_directory, tmp_path):
    with pytest.raises(InputError, match='expected a run directory'):
        vit_jax.Predictor(tmp_path)
    shutil.copy(run_directory / 'description.json', tmp_path)
    with pytest.raises(InputError, match='has not saved a checkpoint yet'):
        vit_jax.Predictor(tmp_path)
    (tmp_path / 'description.json').write_text('{')
    with pytest.raises(InputError, match='expected JSON'):
        vit_jax.Predictor(tmp_path)


def test_predict_command_prints_table_json_and_csv(
    predictor, run_directory, test_examples, tmp_path, capsys
):
    paths = []
    for i in range(2):
        paths.append(str(tmp_path / f'{i}.png'))
        Image.fromarray(test_examples.images[i, ..., 0]).save(paths[-1])
    expected = [
        (path, name, probability)
        for path, classes in zip(paths, predictor.top_k(paths, 2), strict=True)
        for name, probability in classes
    ]
    command = ['predict', str(run_directory), *paths, '--top-k', '2']

    assert main([*command, '--format', 'json']) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row['image'], row['class']) for row in rows] == [row[:2] for row in expected]
    assert [row['probability'] for row in rows] == [row[2] for row in expected]

    assert main([*command, '--format', 'csv']) == 0
    assert list(csv.DictReader(io.StringIO(capsys.readouterr().out))) == [
        {name: str(value) for name, value in row.items()} for row in rows
    ]

    assert main(command) == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert table == [[f'{value:.2%}', name, path] for path, name, value in expected]


def test_a_bad_picture_in_a_folder_does_not_cost_the_other_answers(
    predictor, run_directory, tmp_path, capsys, monkeypatch
):
    good = [str(tmp_path / name) for name in ('a.png', 'inner/c.bmp')]
    (tmp_path / 'inner').mkdir()
    for path in good:
        Image.linear_gradient('L').save(path)
    bad = tmp_path / 'b.jpg'
    bad.write_text('no picture')
    command = ['predict', str(run_directory), '--top-k', '1', '--format', 'json']
    pattern = str(tmp_path / '**' / '*.[pb]*')
    monkeypatch.setattr('sys.stdin', io.TextIOWrapper(io.BytesIO('\n'.join(good).encode())))
    ((name, probability),) = predictor.top_k(good[:1], 1)[0]
    for paths in ([str(tmp_path)], [pattern], ['-', str(bad)]):
        assert main([*command, *paths, '--on-error', 'skip']) == 0
        output, errors = capsys.readouterr()
        rows = json.loads(output)
        assert [row['image'] for row in rows] == good
        assert {row['class'] for row in rows} == {name}
        assert rows[0]['probability'] == pytest.approx(probability, abs=1e-6)
        if paths != [pattern]:
            assert str(bad) in errors and 'skipped: 1 of 3 pictures' in errors
    assert main([*command, str(tmp_path)]) == 2
    output, errors = capsys.readouterr()
    assert str(bad) in errors and errors.count('\n') == 1
    assert json.loads(output) in ([], rows[:1])  # still JSON


def test_summary_command_counts_every_parameter(run_directory, capsys):
    assert main(['summary', str(run_directory)]) == 0
    printed = capsys.readouterr().out.splitlines()
    # 4x4 patches and 5 tokens of 32, one layer with 4 heads of 16, mlp 128, 10 classes
    layer = 2 * 2 * 32 + 32 * 192 + (64 * 32 + 32) + (32 * 128 + 128) + (128 * 32 + 32)
    total = (16 * 32 + 32) + 32 + 5 * 32 + layer + 2 * 32 + (32 * 10 + 10)
    assert printed[-1].split() == ['all', 'parameters', f'{total:,}']
    assert any(line.split() == ['patch_size', '4'] for line in printed)
    assert 'classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9' in [line.strip() for line in printed]


def test_predict_process_exits_with_one_line_and_status_2_on_a_bad_picture(run_directory, tmp_path):
    """As a process, so that whatever jax and Orbax print counts too."""
    (tmp_path / 'text.png').write_text('not a picture')
    command = ['-m', 'vit_jax', 'predict', run_directory, tmp_path / 'text.png']
    output, errors = processes.run(*command, status=2)
    assert output == ''
    assert 'text.png: expected a picture' in errors and errors.count('\n') == 1


def test_failing_commands_exit_with_one_line_and_status_2(run_directory, tmp_path, capsys):
    (tmp_path / 'text.png').write_text('not a picture')
    large = str(tmp_path / 'large.png')
    Image.new('L', (20, 20)).save(large)
    for command, message in [
        (['predict', str(run_directory), large, '--max-pixels', '399'], 'at most 399 pixels'),
        (['predict', str(run_directory), str(tmp_path / 'text.png')], 'expected a picture'),
        (['predict', str(run_directory), str(tmp_path / 'nothing.png')], 'no such file'),
        (['predict', str(tmp_path), str(tmp_path / 'text.png')], 'expected a run directory'),
        (['predict', str(run_directory), large, '--top-k', '0'], 'expected at least 1, got 0'),
        (['predict', str(run_directory), large, '--step', 'worst'], 'no checkpoint worst'),
        (['summary', str(tmp_path / 'nowhere')], 'no such run or weight file'),
    ]:
        assert main(command) == 2
        error = capsys.readouterr().err
        assert message in error and error.count('\n') == 1
