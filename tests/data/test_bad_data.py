"""Training on bad data: examples are named and the run resumes, or they are skipped and counted."""

import json
import shutil
import struct

import jax
import numpy as np
import pytest
from pictures import encode, png_header, small_config
from PIL import Image
from processes import train_py

import vit_jax
from vit_jax.__main__ import main
from vit_jax.data.batches import train_batches
from vit_jax.data.jpeg import _height_offset as height_offset
from vit_jax.data.order import TrainOrder
from vit_jax.data.picture import decode_crop
from vit_jax.data.preprocess import Preprocessing
from vit_jax.data.sources import open_source, open_split
from vit_jax.errors import InputError
from vit_jax.run.json_files import read_json
from vit_jax.run.metrics import read_metrics
from vit_jax.train.trainer import train

PREPROCESSING = Preprocessing((16, 16), 3, (0.5,), (0.5,))


@pytest.fixture
def folder(tmp_path):
    """48 good training pictures and 10 good test pictures, in two classes."""
    rng = np.random.default_rng(0)
    for split, count in (('train', 24), ('test', 5)):
        for name in ('ape', 'yak'):
            path = tmp_path / 'data' / split / name
            path.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 256, (20, 24, 3), np.uint8)
                Image.fromarray(pixels).save(path / f'{i:02}.jpg')
    return tmp_path / 'data'


def bad_pictures():
    whole = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 40, 3), np.uint8))
    jpeg = encode(whole)
    bomb = bytearray(jpeg)
    at = height_offset(jpeg)
    bomb[at : at + 4] = struct.pack('>HH', 65000, 65000)
    return {
        'a truncated JPEG': ('.jpg', jpeg[:-300]),
        'a text file': ('.jpg', b'a text file, named .jpg'),
        'a zero-byte file': ('.jpg', b''),
        'a JPEG bomb': ('.jpg', bytes(bomb)),
        'a PNG bomb': ('.png', png_header(60000, 60000)),
    }


MEMORY = pytest.mark.parametrize('memory_gib', [0.0, 1.0], ids=['stream', 'memory'])


def test_damaged_scan_data_of_a_stream_is_found_below_the_crop(folder):
    """Decoding for a crop stops above it, so the picture is checked as a whole first."""
    path = folder / 'train' / 'ape' / '10.jpg'
    _, jpeg = bad_pictures()['a truncated JPEG']
    path.write_bytes(jpeg + b'\xff\x00' * 50 + b'\xff\xd9')
    whole = path.read_bytes(), '10.jpg', lambda *_: (0, 0, 8, 8), (8, 8)
    pixels = decode_crop(*whole, to_end=False)
    assert pixels.shape == (8, 8, 3)
    with pytest.raises(InputError, match=f'{path}: expected a picture, but it is damaged: Corrupt'):
        read_epoch(folder, memory_gib=0.0)


@MEMORY
@pytest.mark.parametrize('ending, content', bad_pictures().values(), ids=bad_pictures())
def test_bad_pictures_are_named(folder, ending, content, memory_gib):
    path = folder / 'train' / 'ape' / f'10{ending}'
    (folder / 'train' / 'ape' / '10.jpg').unlink()
    path.write_bytes(content)
    with pytest.raises(InputError, match=f'{path}: expected a picture') as error:
        read_epoch(folder, memory_gib)
    assert 'data.on_error=skip' in str(error.value) and '\n' not in str(error.value)


@MEMORY
def test_the_limit_on_pixels_is_an_option(folder, memory_gib):
    with pytest.raises(InputError, match=r'expected a picture of at most 479 pixels, got 24 x 20'):
        read_epoch(folder, memory_gib, max_pixels=479)
    assert len(read_epoch(folder, memory_gib, max_pixels=480)['image']) == 48


def read_epoch(folder, memory_gib, **options):
    """All training examples, in the order of the first epoch."""
    source = open_source(f'folder:{folder}')
    options |= {'memory_gib': memory_gib, 'min_area': 0.5}
    examples = open_split(source, 'train', PREPROCESSING, **options)
    order = TrainOrder(48, 48, range(48), seed=0)
    with train_batches(examples, order, range(1), lambda batch: batch) as batches:
        return next(batches)


@MEMORY
def test_run_resumes_after_its_data_is_repaired(folder, tmp_path, memory_gib):
    path = folder / 'train' / 'ape' / '10.jpg'
    good = path.read_bytes()
    path.write_bytes(good[:-300])
    settings = {'data.memory_gib': memory_gib, 'num_steps': 8, 'checkpoint_every_steps': 0}
    config = small_config(folder, **settings, eval_every_steps=0)
    with pytest.raises(InputError, match=f'{path}: expected a picture'):
        train(config, str(tmp_path / 'run'))
    steps = [int(step.name) for step in (tmp_path / 'run').glob('checkpoints/[1-9]*')]
    assert steps == ([] if memory_gib else [first_step_with(10)])  # no step was lost
    path.write_bytes(good)
    train(config, str(tmp_path / 'run'))
    train(config, str(tmp_path / 'never broken'))
    params = [vit_jax.load_weights(tmp_path / name)[1] for name in ('run', 'never broken')]
    jax.tree.map(np.testing.assert_array_equal, *params)


def test_bad_test_picture_loses_no_training_step(folder, tmp_path):
    path = folder / 'test' / 'ape' / '01.jpg'
    good = path.read_bytes()
    path.write_bytes(good[:-300])
    config = small_config(folder, num_steps=5, checkpoint_every_steps=0, eval_every_steps=3)
    with pytest.raises(InputError, match=f'{path}: expected a picture'):
        train(config, str(tmp_path / 'run'))
    assert [int(step.name) for step in (tmp_path / 'run').glob('checkpoints/[1-9]*')] == [3]
    path.write_bytes(good)
    train(config, str(tmp_path / 'run'))
    train(config, str(tmp_path / 'never broken'))
    params = [vit_jax.load_weights(tmp_path / name)[1] for name in ('run', 'never broken')]
    jax.tree.map(np.testing.assert_array_equal, *params)
    assert vit_jax.Predictor(tmp_path / 'run', step='best')


def first_step_with(index):
    order = TrainOrder(48, 8, range(8), seed=0)
    return next(step for step in range(6) if index in order.examples(step))


def damage_some(folder):
    """Damages training and test pictures; returns the indices of the training ones."""
    for i, (ending, content) in enumerate(bad_pictures().values()):
        path = folder / 'train' / ('ape', 'yak')[i % 2] / f'{3 * i:02}.jpg'
        path.unlink()
        path.with_suffix(ending).write_bytes(content)
    (folder / 'test' / 'yak' / '01.jpg').write_bytes(b'')
    return [0, 24 + 3, 6, 24 + 9, 12]


@MEMORY
def test_skipped_examples_are_counted_and_named(folder, tmp_path, memory_gib, capsys):
    indices = damage_some(folder)
    (folder / 'train' / 'ape' / 'notes.txt').write_text('another ending')
    settings = {'data.memory_gib': memory_gib, 'data.on_error': 'skip', 'num_steps': 7}
    config = small_config(folder, **settings)
    train(config, str(tmp_path / 'run'))
    printed = capsys.readouterr().out
    assert 'examples skipped: 6, see skipped.json' in printed
    assert f'{folder}/train: 1 file left out: .txt\n' in printed
    skipped = read_json(tmp_path / 'run' / 'skipped.json')
    assert sorted(map(int, skipped['train'])) == sorted(indices)
    assert 'train/ape/06.jpg: expected a picture' in skipped['train']['6']
    assert list(skipped['test']) == ['6'] and 'test/yak/01.jpg' in skipped['test']['6']
    # Evaluation counts the remaining nine, during training and afterwards.
    last = read_metrics(tmp_path / 'run' / 'metrics.jsonl')[-1]
    assert (last['accuracy'] * 9) % 1 == pytest.approx(0, abs=1e-6)
    capsys.readouterr()
    assert main(['evaluate', str(tmp_path / 'run')]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    assert (evaluated['num_examples'], evaluated['num_skipped']) == (9, 1)
    assert evaluated['loss'] == pytest.approx(last['loss'], rel=1e-5)
    assert main(['evaluate', str(tmp_path / 'run'), '--on-error', 'raise']) == 2
    assert 'test/yak/01.jpg: expected a picture' in capsys.readouterr().err
    # They are remembered on resume, even if the resumed run meets none of them again.
    for path in (folder / 'train').glob('*/*.jpg'):  # all repaired
        Image.new('RGB', (20, 24)).save(path)
    config.num_steps = 8
    train(config, str(tmp_path / 'run'))
    assert 'examples skipped: 6' in capsys.readouterr().out


@MEMORY
def test_remaining_examples_are_always_the_same(folder, memory_gib):
    damage_some(folder)
    if memory_gib:
        source = open_source(f'folder:{folder}')
        first, second = (
            open_split(source, 'train', PREPROCESSING, on_error='skip') for _ in range(2)
        )
        assert first.num_examples == 43 and first.skipped == second.skipped
        np.testing.assert_array_equal(first.images, second.images)
    else:
        first, second = (read_epoch(folder, memory_gib, on_error='skip') for _ in range(2))
        for name in first:
            np.testing.assert_array_equal(first[name], second[name])


def test_stream_replaces_a_bad_example_with_the_next(folder):
    indices = damage_some(folder)
    split = open_source(f'folder:{folder}').open('train')
    paths = [split.name(index) for index in range(len(split))]
    batch = read_epoch(folder, 0.0, on_error='skip')
    for index in indices:
        shutil.copy(paths[index + 1], paths[index])
    repaired = read_epoch(folder, 0.0)
    for name in batch:
        np.testing.assert_array_equal(batch[name], repaired[name])


@MEMORY
def test_training_split_of_only_bad_pictures_raises(folder, tmp_path, memory_gib):
    for path in folder.glob('train/*/*'):
        path.write_bytes(b'')
    config = small_config(folder, **{'data.memory_gib': memory_gib, 'data.on_error': 'skip'})
    with pytest.raises(InputError, match='none is usable: .*expected a picture'):
        train(config, str(tmp_path / 'run'))


@MEMORY
def test_test_split_of_only_bad_pictures_raises(folder, tmp_path, memory_gib):
    for path in folder.glob('test/*/*'):
        path.write_bytes(b'')
    config = small_config(folder, **{'data.memory_gib': memory_gib, 'data.on_error': 'skip'})
    with pytest.raises(InputError, match='none is usable'):
        train(config, str(tmp_path / 'run'))


@pytest.mark.parametrize('on_error', ['raise', 'skip'])
def test_faulty_folders_raise_before_training(folder, on_error, tmp_path):
    (folder / 'train' / 'zebra').mkdir()
    config = small_config(folder, **{'data.on_error': on_error})
    with pytest.raises(InputError, match='zebra: expected pictures .* got none; add some'):
        train(config, str(tmp_path / 'run'))
    (folder / 'train' / 'zebra').rename(folder / 'test' / 'zebra')
    shutil.copy(folder / 'train' / 'ape' / '00.jpg', folder / 'test' / 'zebra' / '00.jpg')
    with pytest.raises(InputError, match="expected the classes of train, got 'zebra' in test"):
        train(config, str(tmp_path / 'run'))
    assert not (tmp_path / 'run').exists()


def test_unknown_on_error_raises(folder, tmp_path):
    config = small_config(folder, **{'data.on_error': 'ignore'})
    with pytest.raises(InputError, match="data.on_error: expected 'raise' or 'skip', got 'ignore'"):
        train(config, str(tmp_path / 'run'))


def test_train_py_exits_with_one_line_and_status_2_and_resumes(folder, tmp_path, capsys):
    """The same run directory resumes with data.on_error='skip'."""
    path = folder / 'train' / 'yak' / '05.jpg'
    path.write_text('no picture')
    flags = {
        'data.source': f'folder:{folder}',
        'data.image_size': 16,
        'data.memory_gib': 0,
        'num_steps': 12,
        'batch_size': 8,
        'model.dim': 16,
        'model.depth': 1,
        'optim.warmup_steps': 2,
        'checkpoint_every_steps': 0,
    }
    command = [
        '--config=default',
        f'--workdir={tmp_path}',
        *(f'--config.{k}={value}' for k, value in flags.items()),
    ]
    assert train_py(*command) == 2
    error = capsys.readouterr().err
    assert error.startswith(f'train.py: {path}: expected a picture') and error.count('\n') == 1
    assert train_py(*command, '--config.data.on_error=skip') == 0
    output, error = capsys.readouterr()
    assert 'of 12 steps are done' in output
    assert 'examples skipped: 1, see skipped.json' in output
    assert error == ''
