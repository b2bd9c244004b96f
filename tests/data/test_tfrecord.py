"""TFDS data sets stored as TFRecord, with or without a builder; `prepare`."""

import os

import numpy as np
import processes
import pytest
import tensorflow_datasets as tfds
from conftest import ROOT
from PIL import Image

from vit_jax.__main__ import main
from vit_jax.data import tfrecord
from vit_jax.data.batches import eval_batches
from vit_jax.data.order import EvalOrder
from vit_jax.data.preprocess import Preprocessing
from vit_jax.data.sources import open_source, open_split
from vit_jax.data.stream import Stream
from vit_jax.errors import InputError

PREPROCESSING = Preprocessing((8, 9), 3, (0.5,), (0.5,))
SHARDS = {'train': [5, 0, 4, 6], 'test': [3]}


def pictures(split):
    rng = np.random.default_rng(len(split))
    return rng.integers(0, 256, (sum(SHARDS[split]), 8, 9, 3), np.uint8)


@pytest.fixture
def by_hand(tmp_path):
    """A data set without a builder: files written by tf.io, and the metadata TFDS needs."""
    import tensorflow as tf

    features = tfds.features.FeaturesDict(
        {
            'image': tfds.features.Image(shape=(None, None, 3), encoding_format='png'),
            'label': tfds.features.ClassLabel(names=['even', 'odd']),
        }
    )
    folder = tmp_path / 'mine' / '1.0.0'
    folder.mkdir(parents=True)
    template = '{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}'
    splits = []
    for split, lengths in SHARDS.items():
        examples = enumerate(pictures(split))
        for i, length in enumerate(lengths):
            path = folder / f'mine-{split}.tfrecord-{i:05}-of-{len(lengths):05}'
            with tf.io.TFRecordWriter(str(path)) as writer:
                for _ in range(length):
                    number, picture = next(examples)
                    example = features.encode_example({'image': picture, 'label': number % 2})
                    writer.write(features.serialize_example(example))
        where = tfds.core.ShardedFileTemplate(
            data_dir=folder, dataset_name='mine', split=split, filetype_suffix='tfrecord'
        )
        splits.append(tfds.core.SplitInfo(split, lengths, 0, where))
    tfds.folder_dataset.write_metadata(
        data_dir=str(folder), features=features, split_infos=splits, filename_template=template
    )
    return tmp_path


def read(data_dir, split='train', **options):
    source = open_source('tfds:mine', str(data_dir))
    return open_split(source, split, PREPROCESSING, **options)


def test_data_set_without_a_builder_is_read(by_hand):
    source = open_source('tfds:mine', str(by_hand))
    assert source.class_names == ['even', 'odd'] and source.channels == 3
    for split in SHARDS:
        examples = read(by_hand, split)
        np.testing.assert_array_equal(examples.images, pictures(split))
        np.testing.assert_array_equal(examples.labels, np.arange(len(examples.labels)) % 2)
    part = read(by_hand, 'train[3:12]+test[:1]')
    expected = [*pictures('train')[3:12], pictures('test')[0]]
    np.testing.assert_array_equal(part.images, expected)


def test_reading_tfrecord_imports_no_tensorflow(by_hand):
    program = f"""
import sys
from vit_jax.data.batches import eval_batches
from vit_jax.data.order import EvalOrder
from vit_jax.data.sources import open_source, open_split
from vit_jax.data.stream import Stream
from vit_jax.data.preprocess import Preprocessing
source = open_source('tfds:mine', {str(by_hand)!r})
preprocessing = Preprocessing((8, 9), 3, (0.5,), (0.5,))
assert open_split(source, 'train', preprocessing).num_examples == 15
source.prepare()
source = open_source('tfds:mine', {str(by_hand)!r})
assert isinstance(open_split(source, 'train', preprocessing, memory_gib=0.0), Stream)
assert 'tensorflow' not in sys.modules
"""
    processes.run('-c', program)


def test_data_set_too_large_for_memory_streams_once_prepared(by_hand, capsys):
    with pytest.raises(InputError, match='convert it once with vit_jax prepare tfds:mine'):
        read(by_hand, memory_gib=0.0)
    assert main(['prepare', 'tfds:mine', '--data-dir', str(by_hand)]) == 0
    assert capsys.readouterr().out == f'tfds:mine: prepared in {by_hand}/mine/1.0.0\n'
    stream = read(by_hand, memory_gib=0.0)
    assert isinstance(stream, Stream)
    places = EvalOrder(15, 15, range(15))
    with eval_batches(stream, places, lambda batch: batch) as batches:
        (batch,) = batches
    np.testing.assert_array_equal(batch['image'], pictures('train'))
    for split in SHARDS:
        np.testing.assert_array_equal(read(by_hand, split).images, pictures(split))
    # TFDS itself still reads the original files.
    builder = tfds.builder('mine', data_dir=str(by_hand))
    assert len(list(builder.as_dataset(split='train'))) == 15


def test_interrupted_conversion_resumes(by_hand, monkeypatch):
    written = []

    class Interrupted(tfrecord.ArrayRecordWriter):
        def write(self, record):
            if len(written) == 7:
                raise KeyboardInterrupt
            written.append(record)
            super().write(record)

    with monkeypatch.context() as patch:
        patch.setattr(tfrecord, 'ArrayRecordWriter', Interrupted)
        assert main(['prepare', 'tfds:mine', '--data-dir', str(by_hand)]) == 130
    folder = by_hand / 'mine' / '1.0.0'
    done = {path.name: path.stat().st_mtime_ns for path in folder.glob('mine-*array_record*')}
    assert set(done) == {f'mine-train.array_record-0000{i}-of-00004' for i in (0, 1)}
    with pytest.raises(InputError, match='prepare'):  # half a conversion does not count
        read(by_hand, memory_gib=0.0)
    assert main(['prepare', 'tfds:mine', '--data-dir', str(by_hand)]) == 0
    for name, time in done.items():
        assert (folder / name).stat().st_mtime_ns == time
    assert isinstance(read(by_hand, memory_gib=0.0), Stream)
    np.testing.assert_array_equal(read(by_hand).images, pictures('train'))
    assert not list(folder.glob('incomplete*')) and not list(folder.glob('tmp*'))
    again = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert main(['prepare', 'tfds:mine', '--data-dir', str(by_hand)]) == 0
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == again


def test_conversion_shows_progress(by_hand):
    command = ['-m', 'vit_jax', 'prepare', 'tfds:mine', '--data-dir', by_hand]
    _, errors = processes.run(*command)
    assert '15/18' in errors or '18/18' in errors


@pytest.mark.parametrize('damage', ['cut', 'garbage', 'gone', 'short'])
def test_damaged_tfrecord_files_are_named(by_hand, damage, capsys):
    path = by_hand / 'mine' / '1.0.0' / 'mine-train.tfrecord-00002-of-00004'
    content = path.read_bytes()
    length = 12 + int.from_bytes(content[:8], 'little') + 4
    if damage == 'gone':
        path.unlink()
    else:
        path.write_bytes(
            {'cut': content[:-9], 'garbage': b'x' * 40, 'short': content[:length]}[damage]
        )
    with pytest.raises(InputError, match=r'mine-train.tfrecord-00002-of-00004: expected TFRecord'):
        read(by_hand)
    assert main(['prepare', 'tfds:mine', '--data-dir', str(by_hand)]) == 2
    assert 'mine-train.tfrecord-00002-of-00004: expected TFRecord' in capsys.readouterr().err
    assert not list((by_hand / 'mine' / '1.0.0').glob('mine-train.array_record-00002*'))


@pytest.mark.parametrize('memory_gib', [0.0, 1.0])
def test_damaged_array_record_raises_or_is_skipped(by_hand, memory_gib):
    open_source('tfds:mine', str(by_hand)).prepare()
    path = by_hand / 'mine' / '1.0.0' / 'mine-train.array_record-00003-of-00004'
    content = bytearray(path.read_bytes())
    content[200:300] = bytes(100)
    path.write_bytes(content)
    for on_error in ('raise', 'skip'):
        try:
            examples = read(by_hand, on_error=on_error, memory_gib=memory_gib)
            places = EvalOrder(examples.num_examples, 4, range(4))
            with eval_batches(examples, places, lambda batch: batch) as batches:
                assert sum(batch['mask'].sum() for batch in batches) < 15
            assert on_error == 'skip' and examples.skipped
        except InputError as error:
            assert on_error == 'raise' and 'cannot be read' in str(error)


@pytest.mark.parametrize('label', [-1, 2, 10**6])
def test_label_out_of_range_raises_or_is_skipped(by_hand, label):
    import tensorflow as tf

    path = str(by_hand / 'mine' / '1.0.0' / 'mine-test.tfrecord-00000-of-00001')
    records = [x.numpy() for x in tf.data.TFRecordDataset(path)]
    example = tf.train.Example.FromString(records[1])
    example.features.feature['label'].int64_list.value[0] = label
    with tf.io.TFRecordWriter(path) as writer:
        for record in (records[0], example.SerializeToString(), records[2]):
            writer.write(record)
    message = f'tfds:mine, test, example 1: expected a label from 0 to 1, got {label}'
    with pytest.raises(InputError, match=message):
        read(by_hand, 'test')
    examples = read(by_hand, 'test', on_error='skip')
    np.testing.assert_array_equal(examples.images, pictures('test')[::2])
    assert examples.skipped == {1: message}


class ByHand(tfds.core.GeneratorBasedBuilder):
    """Needs pictures.npy in the folder of manual downloads."""

    VERSION = tfds.core.Version('1.0.0')
    MANUAL_DOWNLOAD_INSTRUCTIONS = 'Write to the author for pictures.npy.'
    pkg_dir_path = ROOT

    def _info(self):
        features = {
            'image': tfds.features.Image(shape=(8, 9, 3)),
            'label': tfds.features.ClassLabel(num_classes=2),
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {'train': self._generate_examples(dl_manager.manual_dir / 'pictures.npy')}

    def _generate_examples(self, path):
        for i, picture in enumerate(np.load(path)):
            yield i, {'image': picture, 'label': i % 2}


def test_prepare_uses_manual_downloads(tmp_path, capsys):
    command = ['prepare', 'tfds:by_hand', '--data-dir', str(tmp_path / 'data')]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and 'Write to the author' in error and '--manual-dir' in error
    (tmp_path / 'downloads').mkdir()
    np.save(tmp_path / 'downloads' / 'pictures.npy', pictures('train'))
    assert main([*command, '--manual-dir', str(tmp_path / 'downloads')]) == 0
    source = open_source('tfds:by_hand', str(tmp_path / 'data'))
    images = open_split(source, 'train', PREPROCESSING).images
    assert {x.tobytes() for x in images} == {x.tobytes() for x in pictures('train')}
    assert main(command) == 0  # and does not ask again


def test_prepare_reports_unknown_names_and_needless_calls(tmp_path, capsys):
    assert main(['prepare', 'tfds:mnsit', '--data-dir', str(tmp_path)]) == 2
    assert 'did you mean tfds:mnist' in capsys.readouterr().err
    Image.new('RGB', (4, 4)).save(tmp_path / 'a.png')
    (tmp_path / 'train' / 'ape').mkdir(parents=True)
    os.rename(tmp_path / 'a.png', tmp_path / 'train' / 'ape' / 'a.png')
    assert main(['prepare', f'folder:{tmp_path}']) == 0
    assert 'pictures need no preparation' in capsys.readouterr().out
