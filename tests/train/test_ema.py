"""The moving average of the parameters: its values, what reads it, and resuming."""

import json
import shutil

import numpy as np
import pytest
from conftest import assert_identical, small_digits_config
from flax.traverse_util import flatten_dict

import vit_jax
from vit_jax.errors import InputError
from vit_jax.train.ema import update_ema
from vit_jax.train.trainer import train
from vit_jax.use.evaluate import evaluate
from vit_jax.weights import read_weights


def test_average_equals_numpy():
    rng = np.random.default_rng(0)
    expected = ema = rng.normal(size=3)
    for step in range(100):
        params = rng.normal(size=3)
        ema = update_ema({'a': ema}, {'a': params}, step, 0.85)['a']
        decay = min(0.85, (1 + step) / (10 + step))  # from step 50 on 0.85
        expected = decay * expected + (1 - decay) * params
        np.testing.assert_allclose(ema, expected, atol=1e-6)


@pytest.fixture(scope='module')
def averaged(data_dir, tmp_path_factory):
    """A run of six steps with an average, from which `shared_digits_run` differs only by it."""
    config = small_digits_config(data_dir)
    config.ema.decay = 0.5
    path = tmp_path_factory.mktemp('ema') / 'run'
    train(config, str(path))
    return config, path


def parameters(path, **options):
    return flatten_dict(vit_jax.load_weights(path, **options)[1]['params'], sep='/')


def test_the_parameters_themselves_are_those_of_a_run_without(averaged, shared_digits_run):
    _, path = averaged
    raw, name = parameters(path, ema=False), 'pos_embedding'
    assert_identical(raw, parameters(shared_digits_run))
    assert np.abs(parameters(path)[name] - raw[name]).max() > 1e-5


def test_both_are_evaluated(averaged):
    config, path = averaged
    last = json.loads((path / 'metrics.jsonl').read_text().splitlines()[-1])
    assert last['ema_loss'] != last['loss']
    for ema, key in (True, 'ema_loss'), (False, 'loss'):
        weights = read_weights(path, ema=ema)
        assert weights.name.endswith('moving average') == ema
        found = evaluate(weights, 'tfds:digits', 'test[:48]', data_dir=config.data.dir)
        assert found.loss.mean() == pytest.approx(last[key], rel=1e-5)


def test_average_resumes_bit_identically(averaged, tmp_path):
    config, path = averaged
    shutil.copytree(path, tmp_path / 'run')
    shutil.rmtree(tmp_path / 'run' / 'checkpoints' / '6')
    train(config, str(tmp_path / 'run'))
    assert_identical(parameters(tmp_path / 'run'), parameters(path))


def test_decay_cannot_change(averaged, digits_config):
    _, path = averaged
    with pytest.raises(InputError, match='ema.decay: 0.5 there, 0.0 here'):
        train(digits_config, str(path))
