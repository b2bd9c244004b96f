from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from vit_jax.augment.mix import mix, next_in_batch
from vit_jax.parallel.parallel import create_parallel

MIN_P = 1e-5  # for a statistical test to pass; the draws are fixed
# If one of the two is off, switch_prob does not matter.
MIXUP = dict(cutmix_alpha=0.0, prob=1.0, switch_prob=1.0)
CUTMIX = dict(mixup_alpha=0.0, prob=1.0, switch_prob=0.0)
BOTH = dict(mixup_alpha=0.8, cutmix_alpha=1.0, prob=0.7, switch_prob=0.4)


def mix_each(images, others, count, seed=0, **options):
    """Mixes `count` pairs of images, each pair in its own batch.

    Returns:
      The mixtures, and the weights of the images.
    """

    def mix_pair(key):
        pair = jnp.asarray(np.stack([images, others]))
        mixed, targets = mix(pair, jnp.eye(2), jax.random.split(key, 2), **options)
        return mixed[0], targets[0]

    keys = jax.random.split(jax.random.key(seed), count)
    mixed, targets = map(np.asarray, jax.jit(jax.vmap(mix_pair))(keys))
    np.testing.assert_allclose(targets.sum(axis=-1), 1, rtol=1e-6)
    assert (targets >= 0).all()
    return mixed, targets[:, 0].astype(float)


def noise(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def assert_share(hits, probability):
    assert scipy.stats.binomtest(int(hits.sum()), len(hits), probability).pvalue > MIN_P


@pytest.mark.parametrize('alpha', [0.2, 3.0])
def test_mixup_weights_are_beta_distributed(alpha):
    image, other = noise((4, 5, 3)), noise((4, 5, 3), seed=1)
    mixed, weights = mix_each(image, other, 4000, mixup_alpha=alpha, **MIXUP)
    assert scipy.stats.kstest(weights, scipy.stats.beta(alpha, alpha).cdf).pvalue > MIN_P
    weights = weights[:, None, None, None]
    exact = weights * image + (1 - weights) * other
    assert abs(mixed - exact).max() < 0.5 + 1e-4  # rounded


@cache
def cuts(alpha):
    """Which pixels CutMix took from the other image [count, h, w], and its targets' weights."""
    image, other = np.zeros((32, 48, 1), np.uint8), np.full((32, 48, 1), 255, np.uint8)
    mixed, weights = mix_each(image, other, 4000, cutmix_alpha=alpha, **CUTMIX)
    assert set(np.unique(mixed)) == {0, 255}
    return mixed[..., 0] == 255, weights


def edges(cut):
    """Top and bottom, or left and right, of non-empty rectangles."""
    return cut.argmax(axis=1), cut.shape[1] - cut[:, ::-1].argmax(axis=1)


def test_cutmix_weights_targets_by_area():
    cut, weights = cuts(2.0)
    np.testing.assert_allclose(1 - cut.mean(axis=(1, 2)), weights, atol=1e-6)


def test_cutmix_rectangles_have_the_images_aspect_ratio():
    cut, _ = cuts(2.0)
    cut = cut[cut.any(axis=(1, 2))]
    (top, bottom), (left, right) = edges(cut.any(axis=2)), edges(cut.any(axis=1))
    np.testing.assert_array_equal((bottom - top) * (right - left), cut.sum(axis=(1, 2)))
    inner = (top > 0) & (bottom < 32) & (left > 0) & (right < 48)  # not clipped by the border
    assert inner.sum() > 300
    # Half a pixel of rounding each, the height's times the aspect ratio.
    assert abs((bottom - top) * 48 / 32 - (right - left))[inner].max() <= 1.25 + 1e-6


@pytest.mark.parametrize('alpha', [0.4, 2.0])
def test_cutmix_draws_rectangles_as_the_paper_does(alpha):
    """Area 1 - Beta(alpha, alpha) of the image, centre anywhere, clipped at the border."""
    rng = np.random.default_rng(0)
    count = 20_000
    sides = np.sqrt(1 - rng.beta(alpha, alpha, count))

    def interval(length):
        centre, side = rng.uniform(0, length, count), np.round(sides * length)
        start = np.round(centre - side / 2)
        return np.clip(start, 0, length), np.clip(start + side, 0, length)

    expected = np.array([*interval(32), *interval(48)])
    expected = expected[:, (expected[0] < expected[1]) & (expected[2] < expected[3])]
    cut, _ = cuts(alpha)
    assert_share(~cut.any(axis=(1, 2)), 1 - expected.shape[1] / count)
    cut = cut[cut.any(axis=(1, 2))]
    got = np.array([*edges(cut.any(axis=2)), *edges(cut.any(axis=1))])

    def features(top, bottom, left, right):
        h, w = bottom - top, right - left
        return top, bottom, left, right, h, w, h * w, top + left

    for ours, theirs in zip(features(*got), features(*expected), strict=True):
        assert scipy.stats.ks_2samp(ours, theirs).pvalue > MIN_P


def cut_shares(size, alpha, count=400_000):
    """Shares of CutMix's rectangles that cover no pixel, and every pixel, of a square."""
    rng = np.random.default_rng(0)
    side = np.round(np.sqrt(1 - rng.beta(alpha, alpha, count)) * size)
    start = np.round(rng.uniform(0, size, (2, count)) - side / 2)
    length = np.clip(start + side, 0, size) - np.clip(start, 0, size)
    return (length == 0).any(axis=0).mean(), (length == size).all(axis=0).mean()


def test_mixup_and_cutmix_occur_with_their_probabilities():
    image, other = np.full((8, 8, 1), 0, np.uint8), np.full((8, 8, 1), 255, np.uint8)
    mixed, weights = mix_each(image, other, 5000, **BOTH)
    least, most = mixed.min(axis=(1, 2, 3)), mixed.max(axis=(1, 2, 3))
    added = (least == most) & (weights > 0) & (weights < 1) & (least > 0) & (least < 255)
    # A weight close to 0 or 1 does not show in the pixels; this is the share of the others.
    visible = np.diff(scipy.stats.beta(0.8, 0.8).cdf([0.5 / 255, 1 - 0.5 / 255]))[0]
    assert_share(added, 0.7 * 0.6 * visible)
    nothing, everything = cut_shares(8, 1.0)
    assert_share(weights < 1, 0.7 - 0.7 * 0.4 * nothing)
    assert_share(least < most, 0.7 * 0.4 * (1 - nothing - everything))


BATCH = 8
IMAGES = noise((BATCH, 6, 10, 3))
TARGETS = np.eye(BATCH, dtype=np.float32)
KEYS = jax.random.split(jax.random.key(5), BATCH)


@cache
def mixed_by(mode, devices):
    """The batch, mixed on `devices` devices; on eight, each holds a single example."""
    function = partial(mix, **BOTH)
    parallel = create_parallel(mode, BATCH, jax.devices()[:devices])
    images, targets = parallel.put_batch((IMAGES, TARGETS))
    if mode == 'jit':
        keys = jax.device_put(KEYS, parallel.sharded)
        step = parallel.eval_step(function).lower(images, targets, keys).compile()
        assert 'all-reduce(' not in step.as_text()  # as in loops that end when all rows are done
        mixed = step(images, targets, keys)
        assert all(len(x.sharding.device_set) == devices for x in mixed)
    else:
        keys = KEYS.reshape(devices, -1)
        step = partial(function, axis_name='data')
        mixed = jax.pmap(step, axis_name='data', devices=parallel.devices)(images, targets, keys)
    return [np.asarray(x).reshape(BATCH, *x.shape[-y:]) for x, y in zip(mixed, (3, 1), strict=True)]


@pytest.mark.parametrize('devices', [1, 2, 8])
@pytest.mark.parametrize('mode', ['jit', 'pmap'])
def test_mixing_is_identical_on_any_number_of_devices(mode, devices):
    for got, expected in zip(mixed_by(mode, devices), mixed_by('jit', 1), strict=True):
        assert got.dtype == expected.dtype and got.tobytes() == expected.tobytes()


@pytest.mark.parametrize('mode, devices', [('jit', 1), ('jit', 8), ('pmap', 8)])
def test_each_example_is_mixed_with_the_next_in_the_global_batch(mode, devices):
    images, targets = mixed_by(mode, devices)
    weights = targets.diagonal()
    others = np.roll(np.arange(BATCH), -1)
    np.testing.assert_allclose(targets[np.arange(BATCH), others], 1 - weights, atol=1e-6)
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
    assert len(np.unique(weights)) > BATCH / 2  # one per example
    added = cut = 0
    for image, one, other, weight in zip(images, IMAGES, IMAGES[others], weights, strict=True):
        from_other = (image == other).all(axis=-1)
        if weight == 1:
            np.testing.assert_array_equal(image, one)
        elif ((image == one).all(axis=-1) | from_other).all():
            assert from_other.mean() == pytest.approx(1 - weight, abs=1e-6)
            cut += 1
        else:
            mixture = weight * one.astype(float) + (1 - weight) * other
            assert abs(image - mixture).max() < 0.5 + 1e-4
            added += 1
    assert added and cut


@pytest.mark.parametrize('devices', [1, 2, 8])
def test_next_in_batch_wraps_around(devices):
    rows = np.arange(16).reshape(devices, -1, 1)
    step = partial(next_in_batch, axis_name='data')
    got = jax.pmap(step, axis_name='data', devices=jax.devices()[:devices])(rows)
    expected = np.roll(np.arange(16), -1)
    np.testing.assert_array_equal(np.asarray(got).ravel(), expected)
    np.testing.assert_array_equal(next_in_batch(jnp.arange(16)), expected)
