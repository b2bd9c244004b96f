import hashlib
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from vit_jax.data.batches import epoch_order, example_indices

from vit_jax import data
from vit_jax.errors import InputError
from vit_jax.preprocess import Preprocessing

DIGITS = Preprocessing((8, 8), 1, (0.5,), (0.5,))


def test_digits_are_scikit_learns_in_a_fixed_stratified_split(data_dir):
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    source = data.open_source('tfds:digits', data_dir)
    assert source.class_names == [str(digit) for digit in range(10)]
    assert source.channels == 1
    images, target = load_digits(return_X_y=True)
    halves = train_test_split(images, target, test_size=0.2, stratify=target, random_state=0)
    for split, share, expected_images, labels in (
        ('train', 0.8, *halves[::2]),
        ('test', 0.2, *halves[1::2]),
    ):
        examples = source.read(split, DIGITS.resize)
        # 17 grey levels become 17 bytes, so the values can be had back.
        grey = np.ceil(examples.images.reshape(-1, 64) * (16 / 255))
        ours = np.column_stack([grey, examples.labels])
        expected = np.column_stack([expected_images, labels])
        assert len(ours) == len(expected)
        assert sorted(map(tuple, ours)) == sorted(map(tuple, expected))
        assert np.abs(np.bincount(examples.labels) - np.bincount(target) * share).max() < 1


def test_digits_split_never_changes(data_dir):
    """Whatever scikit-learn does, accuracies stay comparable."""
    images, labels = data.open_source('tfds:digits', data_dir).read('test', DIGITS.resize)
    rows = sorted(
        image.tobytes() + bytes([label]) for image, label in zip(images, labels, strict=True)
    )
    assert hashlib.sha256(b''.join(rows)).hexdigest()[:16] == 'f44bd09f8445df4a'


def test_any_tfds_data_set_goes_through_the_same_path(tmp_path):
    """A data set of another shape: RGB, two sizes, named classes, other feature names."""
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

    source = data.open_source('tfds:colours', str(tmp_path))
    assert (source.class_names, source.channels) == (['even', 'odd'], 3)
    preprocessing = Preprocessing((6, 8), 3, (0.5,), (0.5,))
    images, labels = source.read('everything', preprocessing.resize)
    assert images.shape == (10, 6, 8, 3)
    assert sorted(labels) == [0] * 5 + [1] * 5
    even = {image.tobytes() for image in images[labels == 0]}
    assert even == {picture.tobytes() for picture in pictures[::2]}
    assert len(source.read('everything[:30%]', preprocessing.resize).labels) == 3


def test_reading_imports_no_tensorflow(data_dir):
    program = f"""
import sys
from vit_jax import data
from vit_jax.preprocess import Preprocessing
source = data.open_source('tfds:digits', {data_dir!r})
examples = source.read('train', Preprocessing((8, 8), 1, (0.5,), (0.5,)).resize)
assert len(examples.labels) == 1437
assert 'tensorflow' not in sys.modules
"""
    subprocess.run([sys.executable, '-c', program], cwd=ROOT, check=True)


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
def test_unknown_sources_are_told(source, message, data_dir):
    with pytest.raises(InputError, match=message):
        data.open_source(source, data_dir)


@pytest.mark.parametrize('split', ['validation', 'train[:x]', 'train[:0]'])
def test_unknown_splits_are_told(split, data_dir):
    with pytest.raises(InputError, match='expected a split out of .*train'):
        data.open_source('tfds:digits', data_dir).read(split, DIGITS.resize)


@settings(deadline=None)
@given(num_examples=st.integers(1, 50), batch_size=st.integers(1, 70), seed=st.integers(0, 2**31))
def test_every_epoch_visits_each_example_exactly_once(num_examples, batch_size, seed):
    num_epochs = 3
    steps = -(-num_epochs * num_examples // batch_size)
    batches = [
        example_indices(step, batch_size=batch_size, num_examples=num_examples, seed=seed)
        for step in range(steps)
    ]
    sequence = np.concatenate(batches)[: num_epochs * num_examples]
    for epoch in sequence.reshape(num_epochs, num_examples):
        assert sorted(epoch) == list(range(num_examples))


def test_epochs_and_seeds_differ_in_order():
    orders = [epoch_order(seed, epoch, 100) for seed in (0, 1) for epoch in (0, 1)]
    assert len({order.tobytes() for order in orders}) == 4


def test_order_is_uniform():
    """Chi-square: over many epochs each example comes first equally often."""
    from scipy.stats import chisquare

    firsts = np.bincount([epoch_order(0, epoch, 10)[0] for epoch in range(2000)], minlength=10)
    assert chisquare(firsts).pvalue > 1e-4


def test_order_never_changes():
    """Runs that were begun with an older version go on in the same order."""
    expected = [3, 7, 4, 2, 9, 8, 1, 6, 5, 0]
    assert epoch_order(seed=0, epoch=1, num_examples=10).tolist() == expected


def test_batch_depends_on_seed_and_step_alone():
    images = np.arange(10, dtype=np.uint8).reshape(10, 1, 1, 1)
    examples = data.Examples(images, np.arange(10, dtype=np.int32))
    later = [data.train_batch(examples, step, batch_size=4, seed=3) for step in (7, 6, 5)]
    earlier = [data.train_batch(examples, step, batch_size=4, seed=3) for step in (5, 6, 7)]
    for a, b in zip(later, reversed(earlier), strict=True):
        assert all((a[name] == b[name]).all() for name in a)
        assert (a['image'].ravel() == a['label']).all()
        assert a['position'].tolist() == [0, 1, 2, 3]


@given(num_examples=st.integers(1, 40), batch_size=st.integers(1, 50))
def test_evaluation_batches_hold_each_example_once(num_examples, batch_size):
    images = np.zeros((num_examples, 1, 1, 1), np.uint8)
    examples = data.Examples(images, np.arange(num_examples, dtype=np.int32))
    seen = []
    for batch in data.eval_batches(examples, batch_size):
        assert batch['image'].shape[0] == batch['label'].shape[0] == batch_size
        seen += batch['label'][batch['mask'] == 1].tolist()
        assert set(batch['mask']) <= {0, 1}
    assert seen == list(range(num_examples))
