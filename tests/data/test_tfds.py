import hashlib
import shutil

import numpy as np
import processes
import pytest

from vit_jax.data.preprocess import Preprocessing
from vit_jax.data.sources import open_source, open_split
from vit_jax.errors import InputError

DIGITS = Preprocessing((8, 8), 1, (0.5,), (0.5,))


def test_digits_are_scikit_learns_in_a_fixed_stratified_split(data_dir):
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    source = open_source('tfds:digits', data_dir)
    assert source.class_names == [str(digit) for digit in range(10)]
    assert source.channels == 1
    images, target = load_digits(return_X_y=True)
    halves = train_test_split(images, target, test_size=0.2, stratify=target, random_state=0)
    for split, share, expected_images, labels in (
        ('train', 0.8, *halves[::2]),
        ('test', 0.2, *halves[1::2]),
    ):
        examples = open_split(source, split, DIGITS)
        # 17 grey levels become 17 bytes, so the values can be recovered.
        grey = np.ceil(examples.images.reshape(-1, 64) * (16 / 255))
        ours = np.column_stack([grey, examples.labels])
        expected = np.column_stack([expected_images, labels])
        assert len(ours) == len(expected)
        assert sorted(map(tuple, ours)) == sorted(map(tuple, expected))
        assert np.abs(np.bincount(examples.labels) - np.bincount(target) * share).max() < 1


def test_digits_split_never_changes(data_dir):
    """Whatever scikit-learn does, accuracies stay comparable."""
    examples = open_split(open_source('tfds:digits', data_dir), 'test', DIGITS)
    pairs = zip(examples.images, examples.labels, strict=True)
    rows = sorted(image.tobytes() + bytes([label]) for image, label in pairs)
    assert hashlib.sha256(b''.join(rows)).hexdigest()[:16] == 'f44bd09f8445df4a'


def test_other_tfds_data_sets_are_read(tmp_path):
    """A different data set: RGB, two sizes, named classes, other feature names."""
    import tensorflow_datasets as tfds

    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (6 + i % 2, 8, 3), np.uint8) for i in range(10)]

    class Colours(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version('1.0.0')
        pkg_dir_path = tmp_path  # where TFDS looks for a data set's README

        def _info(self):
            features = {
                'photo': tfds.features.Image(shape=(None, None, 3)),
                'kind': tfds.features.ClassLabel(names=['even', 'odd']),
            }
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(features), supervised_keys=('photo', 'kind')
            )

        def _split_generators(self, dl_manager):
            return {'everything': self._generate_examples()}

        def _generate_examples(self):
            for i, picture in enumerate(pictures):
                yield i, {'photo': picture, 'kind': i % 2}

    source = open_source('tfds:colours', str(tmp_path))
    assert (source.class_names, source.channels) == (['even', 'odd'], 3)
    preprocessing = Preprocessing((6, 8), 3, (0.5,), (0.5,))
    examples = open_split(source, 'everything', preprocessing)
    images, labels = examples.images, examples.labels
    assert images.shape == (10, 6, 8, 3)
    assert sorted(labels) == [0] * 5 + [1] * 5
    even = {image.tobytes() for image in images[labels == 0]}
    assert even == {picture.tobytes() for picture in pictures[::2]}
    assert open_split(source, 'everything[:30%]', preprocessing).num_examples == 3


def test_reading_imports_no_tensorflow(data_dir):
    program = f"""
import sys
from vit_jax.data.sources import open_source, open_split
from vit_jax.data.preprocess import Preprocessing
source = open_source('tfds:digits', {data_dir!r})
examples = open_split(source, 'train', Preprocessing((8, 8), 1, (0.5,), (0.5,)))
assert examples.num_examples == 1437
assert 'tensorflow' not in sys.modules
"""
    processes.run('-c', program)


@pytest.mark.parametrize(
    'source, message',
    [
        ('digits', "expected 'tfds:NAME'"),
        ('tfds:', "expected 'tfds:NAME'"),
        ('tfds:mnsit', 'did you mean tfds:mnist'),
        ('tfds:digits:9.9.9', '9.9.9'),
        ('tfds:digits/large', 'large'),
        ('tfds:glue', 'expected an image and a class label'),
    ],
)
def test_unknown_sources_raise(source, message, data_dir):
    with pytest.raises(InputError, match=message):
        open_source(source, data_dir)


def test_all_is_every_split_together(data_dir):
    source = open_source('tfds:digits', data_dir)
    every, *parts = (open_split(source, split, DIGITS) for split in ('all', 'train', 'test'))
    np.testing.assert_array_equal(every.images, np.concatenate([part.images for part in parts]))
    with pytest.raises(InputError, match='test, train, a slice of one, or all') as error:
        source.open('all[:80%]')
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('split', ['validation', 'train[:x]', 'train[:0]', 'train[5:2]'])
def test_unknown_splits_raise(split, data_dir):
    with pytest.raises(InputError, match='expected one of the splits .*train'):
        open_source('tfds:digits', data_dir).open(split)


def test_data_sets_that_would_import_foreign_code_are_refused(data_dir, tmp_path):
    """`features.json` names the classes of features, whose modules TFDS imports."""
    shutil.copytree(data_dir, tmp_path / 'data')
    (features,) = (tmp_path / 'data').glob('digits/*/features.json')
    text = features.read_text()
    own = 'tensorflow_datasets.core.features.class_label_feature.ClassLabel'
    assert own in text
    features.write_text(text.replace(own, 'antigravity.ClassLabel'))
    with pytest.raises(InputError, match=r'features.json would import antigravity.ClassLabel'):
        open_source('tfds:digits', str(tmp_path / 'data'))
    with pytest.raises(InputError, match="got the namespace 'huggingface'"):
        open_source('tfds:huggingface:mnist')
