"""Low-rank adapters: what learns, what stays, and that they merge into plain weights."""

import json

import jax
import numpy as np
import pytest
from conftest import random_images
from flax.traverse_util import flatten_dict, unflatten_dict

import vit_jax
from vit_jax.__main__ import main
from vit_jax.errors import InputError
from vit_jax.run.checkpoint import Checkpoints
from vit_jax.run.description import read_description
from vit_jax.run.metrics import read_metrics
from vit_jax.train.trainer import train


def lora_config(data_dir, weights, kernels='all', **options):
    overrides = {
        'init.weights': str(weights),
        'data.source': 'tfds:digits',
        'data.dir': data_dir,
        'data.train_split': 'train[:96]',
        'data.test_split': 'test[:48]',
        'augment.horizontal_flip': False,
        'num_steps': 6,
        'batch_size': 16,
        'optim.learning_rate': 0.01,
        'optim.lora_rank': 2,
        'optim.lora_kernels': kernels,
    }
    return vit_jax.load_config('finetune_lora', overrides | options)


@pytest.fixture(scope='module')
def adapted(data_dir, shared_digits_run, tmp_path_factory):
    """A run that has adapted `shared_digits_run`, and what its last checkpoint holds."""
    run = tmp_path_factory.mktemp('lora') / 'run'
    train(lora_config(data_dir, shared_digits_run), str(run))
    description = read_description(run)
    model = vit_jax.ViT(**description['model'])
    with Checkpoints(run, description['run'], read_only=True) as checkpoints:
        like = jax.eval_shape(model.init, jax.random.key(0), random_images(1, (8, 8)))['params']
        _, _, params = checkpoints.restore_params(6, like)
    return run, model, {'/'.join(path): np.asarray(x) for path, x in flatten_dict(params).items()}


def nested(flat):
    return {'params': unflatten_dict(flat, sep='/')}


def test_only_adapters_and_head_learn(adapted, shared_digits_run):
    _, model, params = adapted
    before = flatten_dict(vit_jax.load_weights(shared_digits_run)[1]['params'], sep='/')
    assert model.lora_rank == 2
    for name, x in params.items():
        if name.endswith('lora_b'):
            assert x.any(axis=(1, 2)).all(), name  # in every layer
        elif not name.startswith('mlp_head/') and name in before:
            assert x.tobytes() == np.asarray(before[name]).tobytes(), name
    assert params['mlp_head/layers_1/kernel'].any()
    adapters = {name for name in params if 'lora' in name}
    assert len(adapters) == 2 * 4 and params.keys() == before.keys() | adapters


def test_merged_equals_unmerged(adapted):
    run, model, params = adapted
    merged, variables = vit_jax.load_weights(run)
    images = random_images(1, (8, 8))
    expected = model.apply(nested(params), images)
    assert merged.lora_rank == 0
    np.testing.assert_allclose(merged.apply(variables, images), expected, atol=1e-5)
    without = {k: np.zeros_like(x) if k.endswith('lora_b') else x for k, x in params.items()}
    assert np.abs(model.apply(nested(without), images) - expected).max() > 1e-3


def test_the_optimizer_holds_what_learns(data_dir, shared_digits_run, tmp_path):
    config = lora_config(data_dir, shared_digits_run, 'attention', dry_run=True)
    planned = train(config, str(tmp_path / 'run'))
    model, variables = vit_jax.load_weights(shared_digits_run)
    width, dim = model.heads * model.dim_head, model.dim
    adapters = model.depth * 2 * ((dim + 3 * width) + (width + dim))
    head = dim * 10 + 10 + 2 * dim  # with its norm
    parameters = sum(x.size for x in jax.tree.leaves(variables)) + adapters
    counters = 3  # of the run, of AdamW and of its schedule
    assert planned['state_bytes'] == 4 * (parameters + 2 * (adapters + head) + counters)


def test_commands_read_the_merged_weights(adapted, tmp_path, capsys):
    run, _, _ = adapted
    assert main(['evaluate', str(run)]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    last = read_metrics(run / 'metrics.jsonl')[-1]
    assert evaluated['loss'] == pytest.approx(last['loss'], rel=1e-5)
    converted = tmp_path / 'merged.safetensors'
    assert main(['convert', str(run), str(converted), '--to', 'seed']) == 0
    images = random_images(1, (8, 8))
    one, other = (vit_jax.load_weights(path) for path in (run, converted))
    np.testing.assert_array_equal(one[0].apply(one[1], images), other[0].apply(other[1], images))


def test_wrong_options_are_named(data_dir, shared_digits_run, adapted, tmp_path):
    with pytest.raises(InputError, match=r'optim.lora_rank: expected init.weights'):
        config = lora_config(data_dir, shared_digits_run, **{'init.weights': None})
        config.data.mean = config.data.std = (0.5,)
        config.data.image_size, config.data.crop_fraction = 8, 0.0
        train(config, str(tmp_path / 'run'))
    with pytest.raises(InputError, match="optim.lora_kernels: expected 'all' or 'attention'"):
        train(lora_config(data_dir, shared_digits_run, 'mlp'), str(tmp_path / 'run'))
    with pytest.raises(InputError, match='optim.lora_rank: 2 there, 3 here'):
        config = lora_config(data_dir, shared_digits_run, **{'optim.lora_rank': 3})
        train(config, str(adapted[0]))
