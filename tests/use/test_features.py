import os
import signal
import time

import jax
import numpy as np
import processes
import pytest
from conftest import random_variables
from PIL import Image

import vit_jax
from vit_jax.__main__ import main
from vit_jax.data.preprocess import Preprocessing
from vit_jax.data.sources import open_source, open_split
from vit_jax.errors import InputError
from vit_jax.use import feature_parts
from vit_jax.use.features import extract_features, list_pictures, read_features

DESCRIPTION = {'preprocessing': {'mean': (0.5,), 'std': (0.5,)}}


def save_random_weights(path, scale=1.0):
    model = vit_jax.ViT(
        image_size=8, patch_size=4, num_classes=10, dim=8, depth=1, heads=2, dim_head=4,
        mlp_dim=8, channels=1,
    )  # fmt: skip
    variables = jax.tree.map(lambda x: scale * x, random_variables(model))
    vit_jax.save_weights(path, model, variables, 'seed', DESCRIPTION)
    return str(path)


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    return save_random_weights(tmp_path_factory.mktemp('weights') / 'vit.safetensors')


@pytest.fixture(scope='module')
def predictor(weights):
    return vit_jax.Predictor(weights)


@pytest.fixture(scope='module')
def shared_pictures(tmp_path_factory):
    """300 pictures of random pixels: two parts of 128, and one of 44."""
    folder = tmp_path_factory.mktemp('pictures')
    rng = np.random.default_rng(0)
    for i in range(300):
        Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(folder / f'{i:03}.png')
    return folder


@pytest.fixture
def paths(shared_pictures, tmp_path, monkeypatch):
    """Copies of them in tmp_path, by name, in parts of 128; the files may be changed."""
    monkeypatch.setattr(feature_parts, 'PART', 128)
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'pictures').mkdir()
    for path in sorted(shared_pictures.iterdir()):
        (tmp_path / 'pictures' / path.name).write_bytes(path.read_bytes())
    return [f'pictures/{i:03}.png' for i in range(300)]


@pytest.fixture
def whole(predictor, paths, tmp_path):
    """The bytes of an uninterrupted extraction of them."""
    extract_features(predictor, list_pictures(paths), 'whole.npz')
    return (tmp_path / 'whole.npz').read_bytes()


class Stopped(Exception):
    pass


def interrupt(predictor, paths, output, monkeypatch, batches=1, **options):
    """Stops an extraction after a number of batches of 128."""
    extract, calls = predictor.extract, []

    def stopping(images):
        calls.append(len(images))
        if len(calls) > batches:
            raise Stopped
        return extract(images)

    with monkeypatch.context() as patch:
        patch.setattr(predictor, 'extract', stopping)
        with pytest.raises(Stopped):
            extract_features(predictor, list_pictures(paths), output, **options)


def count_batches(predictor, monkeypatch):
    """A list that grows with each batch, by its number of pictures."""
    extract, calls = predictor.extract, []
    monkeypatch.setattr(predictor, 'extract', lambda x: calls.append(len(x)) or extract(x))
    return calls


def test_features_of_a_folder_are_those_of_the_predictor(
    weights, predictor, paths, tmp_path, capsys
):
    assert main(['features', weights, 'pictures', '-o', 'out.npz']) == 0
    assert capsys.readouterr().out == 'out.npz: 300 pictures, 8 features each\n'
    with np.load('out.npz', allow_pickle=False) as file:
        found = dict(file)
    assert found.keys() == {'features', 'names', 'extraction'}
    assert found['names'].tolist() == paths
    assert found['features'].dtype == np.float32
    np.testing.assert_array_equal(found['features'], predictor.features(paths))
    assert sorted(os.listdir()) == ['out.npz', 'pictures']


def test_features_of_a_source_have_labels_and_names(
    weights, predictor, data_dir, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    command = ['features', weights, 'tfds:digits', '--data-dir', data_dir, '-o', 'out.npz']
    assert main([*command, '--split', 'test']) == 0
    examples = open_split(
        open_source('tfds:digits', data_dir), 'test', Preprocessing((8, 8), 1, (0.5,), (0.5,))
    )
    found = read_features('out.npz')
    np.testing.assert_array_equal(found.features, predictor.features(examples.images))
    np.testing.assert_array_equal(found.labels, examples.labels)
    assert found.labels.dtype == np.int32 and found.class_names == list('0123456789')
    assert found.names[7] == 'tfds:digits, test, example 7'
    assert main(command) == 0  # another split: the file is written anew
    assert len(read_features('out.npz').labels) == 1797


def test_all_splits_of_a_folder_source(weights, predictor, paths, tmp_path):
    names = ['set/test/yak/a.png', 'set/train/ape/b.png', 'set/train/yak/c.png']
    for name, path in zip(names, paths, strict=False):
        os.makedirs(os.path.dirname(name))
        os.rename(path, name)
    assert main(['features', weights, 'folder:set', '-o', 'out.npz']) == 0
    found = read_features('out.npz')
    assert sorted(found.names) == names and found.class_names == ['ape', 'yak']
    assert [found.class_names[label] for label in found.labels] == [
        name.split('/')[2] for name in found.names
    ]
    np.testing.assert_array_equal(found.features, predictor.features(found.names))


def test_resumed_extraction_equals_uninterrupted_one(predictor, paths, whole, monkeypatch):
    interrupt(predictor, paths, 'out.npz', monkeypatch)
    assert not os.path.exists('out.npz')
    assert {'000000.npz', 'extraction.json'} <= set(os.listdir('out.npz.parts'))
    batches, lines = count_batches(predictor, monkeypatch), []
    extract_features(predictor, list_pictures(paths), 'out.npz', report=lines.append)
    assert lines == ['out.npz.parts: resuming with 1 of 3 parts done'] and batches == [128, 44]
    with open('out.npz', 'rb') as file:
        assert file.read() == whole
    assert not os.path.exists('out.npz.parts')
    extract_features(predictor, list_pictures(paths), 'out.npz', report=lines.append)
    assert lines[1:] == ['out.npz: complete already'] and batches == [128, 44]


def test_killed_process_resumes_to_the_same_file(weights, paths, whole, tmp_path, capsys):
    program = """
import sys, time
from vit_jax.__main__ import main
from vit_jax.use import feature_parts
from vit_jax.use.predict import Predictor
feature_parts.PART = 128
extract, calls = Predictor.extract, []
def slow(self, images):
    calls.append(1)
    time.sleep(0 if len(calls) == 1 else 60)
    return extract(self, images)
Predictor.extract = slow
main(sys.argv[1:])
"""
    command = ['features', weights, 'pictures', '-o', 'out.npz']
    process = processes.start('-c', program, *command, devices=8, cwd=tmp_path)
    while not os.path.exists('out.npz.parts/000000.npz') and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == -signal.SIGTERM, process.communicate()
    process.communicate()
    assert not os.path.exists('out.npz')
    assert main(command) == 0
    assert 'resuming with 1 of 3 parts done' in capsys.readouterr().err
    with open('out.npz', 'rb') as file:
        assert file.read() == whole


def test_other_weights_start_again(predictor, paths, whole, tmp_path, monkeypatch):
    interrupt(predictor, paths, 'out.npz', monkeypatch)
    other, lines = vit_jax.Predictor(save_random_weights(tmp_path / 'a.safetensors', 0.9)), []
    found = extract_features(other, list_pictures(paths), 'out.npz', report=lines.append)
    assert lines == ['out.npz.parts: other weights: starting again']
    np.testing.assert_array_equal(found.features, other.features(paths))
    extract_features(predictor, list_pictures(paths), 'out.npz', report=lines.append)
    with open('out.npz', 'rb') as file:
        assert file.read() == whole
    assert len(lines) == 1


def test_only_parts_of_changed_pictures_are_computed_again(predictor, paths, monkeypatch):
    interrupt(predictor, paths, 'out.npz', monkeypatch, batches=2)
    Image.new('L', (9, 9), 7).save(paths[130])
    with open('out.npz.parts/000001.npz', 'rb') as file:
        assert file.read()
    batches = count_batches(predictor, monkeypatch)
    found = extract_features(predictor, list_pictures(paths), 'out.npz')
    assert batches == [128, 44]
    np.testing.assert_array_equal(found.features, predictor.features(paths))


def test_damaged_parts_are_computed_again(predictor, paths, whole, monkeypatch):
    interrupt(predictor, paths, 'out.npz', monkeypatch, batches=2)
    with open('out.npz.parts/000000.npz', 'r+b') as file:
        file.seek(700)
        file.write(b'damage')
    with open('out.npz.parts/000001.npz', 'r+b') as file:
        file.truncate(300)
    batches = count_batches(predictor, monkeypatch)
    extract_features(predictor, list_pictures(paths), 'out.npz')
    assert batches == [128, 128, 44]
    with open('out.npz', 'rb') as file:
        assert file.read() == whole


def test_unusable_pictures_end_it_or_are_left_out(weights, predictor, paths, capsys):
    for number in (5, 140):
        with open(paths[number], 'w') as file:
            file.write('not a picture')
    command = ['features', weights, 'pictures', '-o', 'out.npz']
    assert main(command) == 2
    message = capsys.readouterr().err
    assert message.count('\n') == 1 and 'pictures/005.png: expected a picture' in message
    assert main([*command, '--on-error', 'skip']) == 0
    output, errors = capsys.readouterr()
    assert output == 'out.npz: 298 pictures, 8 features each; 2 skipped\n'
    lines = errors.splitlines()
    assert [line.split(':')[1] for line in lines] == [f' {paths[5]}', f' {paths[140]}']
    usable = [path for number, path in enumerate(paths) if number not in (5, 140)]
    found = read_features('out.npz')
    assert found.names == usable
    np.testing.assert_allclose(found.features, predictor.features(usable), atol=1e-6)
    assert main([*command, '--on-error', 'skip']) == 0
    assert 'complete already' in capsys.readouterr().err
    assert main(command) == 2  # the file lacks some, so it is not what was asked for
    assert 'pictures/005.png' in capsys.readouterr().err


def test_a_part_that_lacks_pictures_is_not_resumed_from_unless_they_are_skipped(
    predictor, paths, monkeypatch
):
    with open(paths[5], 'w') as file:
        file.write('not a picture')
    interrupt(predictor, paths, 'out.npz', monkeypatch, on_error='skip')
    with pytest.raises(InputError, match=r'005\.png: expected a picture'):
        extract_features(predictor, list_pictures(paths), 'out.npz')
    batches = count_batches(predictor, monkeypatch)
    found = extract_features(predictor, list_pictures(paths), 'out.npz', on_error='skip')
    assert batches == [128, 44] and found.names == paths[:5] + paths[6:]


def test_nothing_else_in_a_folder_of_that_name_is_deleted(predictor, paths):
    os.mkdir('out.npz.parts')
    with open('out.npz.parts/mine.txt', 'w') as file:
        file.write('mine')
    with pytest.raises(InputError, match=r'mine\.txt is in it; move it away'):
        extract_features(predictor, list_pictures(paths), 'out.npz')
    assert os.listdir('out.npz.parts') == ['mine.txt']


@pytest.mark.parametrize(
    'arguments, message',
    [
        ('nowhere a.png -o a.npz', 'nowhere: no such file or run directory'),
        ('WEIGHTS a.png -o a.npz', 'a.png: no such file or folder'),
        ('WEIGHTS pictures -o a.npy', 'a.npy: expected a file ending in .npz'),
        ('WEIGHTS pictures -o no/a.npz', 'no/a.npz: expected a file in an existing folder'),
        ('WEIGHTS pictures tfds:digits -o a.npz', 'expected one SOURCE or pictures'),
        ('WEIGHTS pictures --split test -o a.npz', 'expected a SOURCE'),
        ('WEIGHTS folder:no -o a.npz', 'folder:no: no such folder'),
        ('WEIGHTS pictures', "Missing option '-o' / '--output'"),
    ],
)
def test_wrong_input_ends_in_one_line(weights, paths, arguments, message, capsys):
    arguments = arguments.replace('WEIGHTS', weights).split(' ')
    assert main(['features', *arguments]) == 2
    output, errors = capsys.readouterr()
    assert output == '' and message in errors and errors.count('\n') == 1
    assert os.listdir() == ['pictures']


def test_nothing_usable_is_an_error(weights, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with open('a.png', 'w') as file:
        file.write('not a picture')
    assert main(['features', weights, 'a.png', '-o', 'out.npz', '--on-error', 'skip']) == 2
    skipped, message = capsys.readouterr().err.splitlines()
    assert skipped.startswith('skipped: a.png') and message.endswith('none of 1 is usable')
    assert not os.path.exists('out.npz')
