"""Runs `augment` on small pictures, for the augmentation tests."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from vit_jax.augment.augment import augment

MIN_P = 1e-5  # for a statistical test to pass; the draws are fixed


OFF = dict(
    num_classes=4,
    random_resized_crop=0.0,
    pad_and_crop=0,
    horizontal_flip=False,
    color_jitter=(0.0, 0.0, 0.0, 0.0),
    policy='none',
    num_ops=2,
    magnitude=10.0,
    erasing_prob=0.0,
    mixup_alpha=0.0,
    cutmix_alpha=0.0,
    mix_prob=1.0,
    mix_switch_prob=0.5,
    label_smoothing=0.0,
)


@functools.cache
def compiled(**options):
    return jax.jit(functools.partial(augment, **OFF | options))


def run(images, labels=None, seed=0, **options):
    labels = jnp.zeros(len(images), int) if labels is None else jnp.asarray(labels)
    keys = jax.random.split(jax.random.key(seed), len(images))
    images, targets = compiled(**options)(jnp.asarray(images), labels, keys)
    return np.asarray(images), np.asarray(targets)


def copies(image, count):
    return np.broadcast_to(image, (count, *image.shape))


def pictures(count, size=5, channels=2):
    return np.random.default_rng(0).integers(1, 256, (count, size, size, channels), np.uint8)


def assert_uniform(values, low, high):
    distribution = scipy.stats.uniform(low, high - low)
    assert scipy.stats.kstest(values, distribution.cdf).pvalue > MIN_P
    edge = 12 / len(values) * (high - low)  # empty with probability e ** -12
    assert values.min() < low + edge and values.max() > high - edge
