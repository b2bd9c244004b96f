import math
from functools import cache, partial

import jax
import numpy as np
import pytest
import scipy.stats
from references.torchvision import is_central_crop, torchvision_central_crop, torchvision_crop

from vit_jax.data.crop import ATTEMPTS, choose_crop

MIN_P = 1e-5  # for a statistical test to pass; the draws are fixed


SHAPES = [(1000, 1000, 0.08), (600, 1000, 0.4), (1100, 700, 0.7), (200, 1000, 0.05)]


@cache
def boxes(height, width, min_area, count=4000, seed=0):
    """top, left, height and width of many crops, drawn by JAX."""
    uniform = jax.random.uniform(jax.random.key(seed), (count, 2 * ATTEMPTS + 2))
    choose = partial(choose_crop, height=height, width=width, min_area=min_area)
    return np.asarray(jax.jit(jax.vmap(choose))(uniform), float).T


@pytest.mark.parametrize('height, width, min_area', SHAPES)
def test_boxes_are_distributed_as_in_torchvision(height, width, min_area):
    rng = np.random.default_rng(0)
    expected = np.array([torchvision_crop(rng, height, width, min_area) for _ in range(4000)]).T

    def features(top, left, h, w):
        drawn = ~is_central_crop(h, w, height, width)
        return (h, w, h * w, h / w, drawn, top[drawn], left[drawn], (top + left)[drawn])

    ours, theirs = features(*boxes(height, width, min_area)), features(*expected)
    for one, other in zip(ours, theirs, strict=True):
        assert scipy.stats.ks_2samp(one, other).pvalue > MIN_P


def test_areas_and_log_aspect_ratios_are_uniform():
    """In a square every crop of up to 3/4 of the area fits, so no attempt is rejected."""
    _, _, h, w = boxes(1000, 1000, 0.08)
    small = h * w < 0.75e6
    assert 0.6 < small.mean() < 0.9
    area, log_aspect = (h * w / 1e6)[small], np.log(w / h)[small]
    limit = math.log(4 / 3)
    uniform = scipy.stats.uniform
    assert scipy.stats.kstest(area, uniform(0.08, 0.67).cdf).pvalue > MIN_P
    assert scipy.stats.kstest(log_aspect, uniform(-limit, 2 * limit).cdf).pvalue > MIN_P
    assert scipy.stats.spearmanr(area, log_aspect).pvalue > MIN_P
    # Areas and aspect ratios stay in range, up to the rounding of sides to pixels.
    assert area.min() > 0.08 - 1e-3 and abs(log_aspect).max() < limit + 3e-3


@pytest.mark.parametrize('height, width, min_area', SHAPES[:3])
def test_positions_are_uniform(height, width, min_area):
    top, left, h, w = boxes(height, width, min_area)
    rng = np.random.default_rng(1)  # spreads a pixel's probability over the pixel
    drawn = ~is_central_crop(h, w, height, width)
    down = ((top + rng.uniform(size=top.size)) / (height - h + 1))[drawn]
    right = ((left + rng.uniform(size=top.size)) / (width - w + 1))[drawn]
    for position in (down, right):
        assert scipy.stats.kstest(position, 'uniform').pvalue > MIN_P
        assert scipy.stats.spearmanr(position, (h * w)[drawn]).pvalue > MIN_P
    assert scipy.stats.spearmanr(down, right).pvalue > MIN_P


@pytest.mark.parametrize('height, width', [(1, 1), (1, 9), (9, 1), (2, 3), (32, 32), (7, 300)])
@pytest.mark.parametrize('min_area', [0.01, 0.5, 1.0])
def test_boxes_are_inside_the_picture_and_not_empty(height, width, min_area):
    rng = np.random.default_rng(0)
    uniform = rng.uniform(size=(200, 2 * ATTEMPTS + 2))
    uniform[:50] = rng.choice([0, np.nextafter(1, 0)], size=(50, 2 * ATTEMPTS + 2))  # extremes
    for numbers in (*uniform, *np.minimum(uniform, np.nextafter(1, 0, dtype='f')).astype('f')):
        top, left, h, w = choose_crop(numbers, height, width, min_area).tolist()
        assert 0 <= top < top + h <= height and 0 <= left < left + w <= width


@pytest.mark.parametrize(
    'height, width', [(10, 300), (11, 300), (300, 11), (1, 50), (50, 1), (100, 100), (90, 100)]
)
def test_fallback_is_the_central_crop_of_torchvision(height, width):
    uniform = np.full(2 * ATTEMPTS + 2, 0.9)
    uniform[ATTEMPTS : 2 * ATTEMPTS : 2] = 0.1  # each attempt is too wide or too high
    box = choose_crop(uniform, height, width, 1.0).tolist()
    assert box == list(torchvision_central_crop(height, width))


def test_first_attempt_that_fits_is_taken():
    uniform = np.full(2 * ATTEMPTS + 2, 0.999)  # nearly all of a square, and too wide
    for attempt in reversed(range(ATTEMPTS)):
        uniform[attempt], uniform[ATTEMPTS + attempt] = attempt / ATTEMPTS, 0.5  # a square crop
        _, _, h, w = choose_crop(uniform, 1000, 1000, 0.1).tolist()
        assert h == w == round(1000 * math.sqrt(0.1 + 0.9 * attempt / ATTEMPTS))


@pytest.mark.parametrize(
    'height, width, min_area', [(224, 224, 0.08), (48, 64, 0.3), (30, 300, 1.0)]
)
def test_numpy_and_jax_choose_the_same_boxes(height, width, min_area):
    """From the same float32; one pixel apart where a rounding is a tie up to the last bit."""
    uniform = jax.random.uniform(jax.random.key(1), (3000, 2 * ATTEMPTS + 2))
    choose = partial(choose_crop, height=height, width=width, min_area=min_area)
    on_devices = np.asarray(jax.jit(jax.vmap(choose))(uniform))
    on_host = np.array([choose(numbers) for numbers in np.asarray(uniform)])
    assert on_devices.dtype == on_host.dtype == np.int32
    assert (on_devices != on_host).any(axis=1).sum() <= 1
    assert abs(on_devices - on_host).max() <= 1
