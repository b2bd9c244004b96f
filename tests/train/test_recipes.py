"""Recipes against the publications that they follow: sizes, schedules, decay, a real step."""

import math
import tarfile

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import ROOT

import vit_jax
from vit_jax.data.memory import InMemory
from vit_jax.model.shapes import parameter_shapes
from vit_jax.parallel.parallel import create_parallel
from vit_jax.run.metrics import read_metrics
from vit_jax.train.build import create_learner, find_start
from vit_jax.train.length import run_length
from vit_jax.train.trainer import train

SAMPLE = ROOT.parent / 'shared/data/imagenet_sample_200.tar'
IMAGENET = 1_281_167  # examples


def build(recipe, num_examples, num_classes, channels=3):
    """The learner, the schedule and the length of a recipe on data of this size."""
    config = vit_jax.load_config(recipe)
    start = find_start(config, [str(i) for i in range(num_classes)], channels)
    length = run_length(config, num_examples)
    none = InMemory(np.empty((0, *start.preprocessing.shape), np.uint8), np.empty(0, np.int32))
    parallel = create_parallel(batch_size=config.batch_size, **config.parallel)
    return *create_learner(config, start, none, length, parallel, None), length


def count(model):
    return sum(map(math.prod, parameter_shapes(model).values()))


def blocks(depth, dim, mlp_dim, qkv_bias=True):
    attention = 4 * dim**2 + (4 if qkv_bias else 1) * dim
    return depth * (attention + 2 * dim * mlp_dim + mlp_dim + dim + 4 * dim)


@pytest.mark.parametrize(
    'recipe, num_classes, channels, expected',
    [
        # patches; cls token and positions; layers; norm; head
        ('cifar10', 10, 3, 49 * 192 + 66 * 192 + blocks(9, 192, 384, False) + 2 * 192 + 1930),
        ('cifar100', 100, 3, 49 * 192 + 66 * 192 + blocks(9, 192, 384, False) + 2 * 192 + 19_300),
        ('fashion_mnist', 10, 1, 17 * 128 + 49 * 128 + blocks(6, 128, 256, False) + 256 + 1290),
        ('imagenet_s16', 1000, 3, 21_974_632),
        ('imagenet_b16_augreg', 1000, 3, 86_567_656 + 768**2 + 768),
        # The published 86,585,320 have 196 positions, for 224 pixels.
        ('deit3_b16', 1000, 3, 86_585_320 - (196 - 144) * 768),
    ],
)
def test_parameters_are_as_published_or_counted_by_hand(recipe, num_classes, channels, expected):
    learner, _, _ = build(recipe, IMAGENET, num_classes, channels)
    assert count(learner.model) == expected


@pytest.mark.parametrize(
    'recipe, num_examples, num_steps, warmup, peak',
    [
        ('cifar10', 50_000, 117_188, 11_719, 1e-3),  # theirs: 100 x 1171 and 10 x 1171
        ('imagenet_s16', round(0.99 * IMAGENET), 111_477, 10_000, 1e-3),
        ('imagenet_b16_augreg', round(0.99 * IMAGENET), 92_898, 10_000, 1e-3),
        # As many pictures as in theirs, in batches of 2016 instead of 2048.
        ('deit3_b16', IMAGENET, math.ceil(800 * IMAGENET / 2016), 3178, 3e-3),
    ],
)
def test_schedules_are_the_published_ones(recipe, num_examples, num_steps, warmup, peak):
    _, schedule, length = build(recipe, num_examples, 10)
    assert (length.num_steps, length.warmup) == (num_steps, warmup)
    for step in (0, 1, warmup // 2, warmup, (warmup + num_steps) // 2, num_steps - 1, num_steps):
        done = (step - warmup) / (num_steps - warmup)
        decayed = peak * (1 + math.cos(math.pi * done)) / 2
        expected = peak * step / warmup if step < warmup else decayed
        assert float(schedule(step)) == pytest.approx(expected, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize('recipe', ['imagenet_s16', 'imagenet_b16_augreg'])
def test_kernels_decay_as_in_big_vision(recipe):
    """By 1e-4 a step at the peak, which big_vision writes as wd=1e-4, relative to the peak."""
    learner, _, length = build(recipe, IMAGENET, 10)
    params = {'kernel': jnp.full(3, 2.0), 'bias': jnp.full(3, 2.0)}
    at_the_peak = optax.tree.set(learner.optimizer.init(params), count=jnp.int32(length.warmup))
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = learner.optimizer.update(zeros, at_the_peak, params)
    np.testing.assert_allclose(updates['kernel'], -1e-4 * params['kernel'], rtol=1e-6)
    np.testing.assert_array_equal(updates['bias'], 0)


@pytest.mark.slow
@pytest.mark.skipif(not SAMPLE.exists(), reason='needs a sample of photographs')
@pytest.mark.parametrize('recipe', ['imagenet_s16', 'imagenet_b16_augreg', 'deit3_b16'])
def test_a_step_on_photographs(recipe, tmp_path):
    with tarfile.open(SAMPLE) as archive:
        archive.extractall(tmp_path, filter='data')
    options = {
        'data.source': f'folder:{tmp_path / "imagenet_sample_200"}',
        'data.train_split': 'all',
        'data.test_split': 'all',
        'num_steps': 1,
        'batch_size': 24,  # for three copies of each example, on eight devices
        'optim.warmup_steps': 0,
    }
    train(vit_jax.load_config(recipe, options), str(tmp_path / 'run'))
    lines = read_metrics(tmp_path / 'run' / 'metrics.jsonl')
    assert [line['split'] for line in lines] == ['train', 'test']
    assert lines[0]['grad_norm'] > 0
