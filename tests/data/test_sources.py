"""Training on what users have: folders of pictures, and data sets of TFDS's catalog."""

import tarfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from pictures import small_config

import vit_jax
from vit_jax.data.preprocess import Preprocessing
from vit_jax.data.sources import open_source, open_split
from vit_jax.train.trainer import train

CIFAR = Path(__file__).parents[3] / 'shared' / 'data' / 'cifar10_jpeg.tar.xz'


@pytest.mark.parametrize(
    'name, memory_gib',
    [
        pytest.param('cifar10', 1.0, marks=pytest.mark.slow),
        ('oxford_flowers102', 0.0),
        ('imagenette/160px-v2', 1.0),
    ],
)
def test_catalog_data_sets_train(name, memory_gib, tmp_path):
    """With TFDS's own mock: random pictures with the real features."""
    settings = {'data.source': f'tfds:{name}', 'data.memory_gib': memory_gib, 'num_steps': 3}
    config = small_config('', **settings)
    if name.startswith('imagenette'):
        config.data.test_split = 'validation'
    with tfds.testing.mock_data(num_examples=20, policy=tfds.testing.MockPolicy.USE_CODE):
        result = train(config, str(tmp_path / 'run'))
    assert result['step'] == 3 and np.isfinite(result['loss'])


def test_predict_preprocesses_as_evaluation_does(photographs, tmp_path):
    """Centre crops of pictures of any size, with the run's mean and std."""
    config = small_config(photographs, **{'data.crop_fraction': 0.6, 'data.mean': (0.2, 0.4, 0.6)})
    result = train(config, str(tmp_path / 'run'))
    predictor = vit_jax.Predictor(tmp_path / 'run')
    assert predictor.preprocessing.crop_fraction == 0.6
    split = open_source(f'folder:{photographs}').open('test')
    records = [split[i] for i in range(len(split))]
    probabilities = predictor([record.name for record in records])
    labels = [record.label for record in records]
    loss = -np.log(probabilities[np.arange(len(labels)), labels]).mean()
    assert loss == pytest.approx(result['loss'], rel=1e-5)


@pytest.mark.slow
def test_cifar10_as_a_folder_of_pictures_trains(tmp_path):
    if not CIFAR.exists():
        pytest.skip(f'needs {CIFAR.name} beside the project')
    with tarfile.open(CIFAR) as archive:
        # Every fifth picture, because most of the time goes into writing and deleting files.
        members = [x for x in archive if x.isfile() and int(Path(x.name).stem) % 5 == 0]
        archive.extractall(tmp_path / 'cifar10', members, filter='data')
    source = open_source(f'folder:{tmp_path / "cifar10"}')
    assert source.class_names[:3] == ['airplane', 'automobile', 'bird']
    assert len(source.class_names) == 10
    preprocessing = Preprocessing((32, 32), 3, (0.5,), (0.5,))
    for split, num_examples in (('train', 10_000), ('test', 2_000)):
        examples = open_split(source, split, preprocessing)
        assert examples.images.shape == (num_examples, 32, 32, 3)
        assert (np.bincount(examples.labels) == num_examples // 10).all()
    settings = {'batch_size': 64, 'num_steps': 150, 'data.memory_gib': 1.0, 'model.dim': 32}
    config = small_config(tmp_path / 'cifar10', **settings, log_every_steps=0)
    config.eval_every_steps = config.checkpoint_every_steps = 0
    config.optim.learning_rate = 3e-3
    config.augment.random_resized_crop = 0.0
    result = train(config, str(tmp_path / 'run'))
    assert result['accuracy'] > 0.2  # a tenth by chance; 2,000 test pictures
