import colorsys
import functools
import itertools

import numpy as np
import pytest
import scipy.stats
from augmenting import LEAST_P, assert_uniform, copies, run
from PIL import ImageEnhance
from references.pillow import picture, pillow, pixels

JITTER = (0.4, 0.7, 0.9, 0.2)


ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


def jittered(image, count, *on):
    """By one or more of the four."""
    options = tuple(amount if i in on else 0.0 for i, amount in enumerate(JITTER))
    return run(copies(image, count), color_jitter=options)[0]


@functools.cache
def factors(i, count=600):
    """What each example was multiplied by, where there is a factor that Pillow makes it of."""
    image = picture('noise')[:24, :32]
    other = pixels(ENHANCERS[i](pillow(image)).degenerate).astype(float)
    distance = image - other
    pixel = distance != 0
    found = []
    for got in jittered(image, count, i).astype(float):
        # Cut off to a whole number: other + factor * distance is from `got` to less than 1 more.
        low = np.where(got > 0, got, -np.inf)[pixel] - other[pixel]
        high = np.where(got < 255, got + 1, np.inf)[pixel] - other[pixel]
        bounds = np.sort([low / distance[pixel], high / distance[pixel]], axis=0)
        low, high = bounds[0].max(), bounds[1].min()
        assert low < high + 1e-6 and high - low < 1e-2
        found.append((low + high) / 2)
    return np.array(found)


def hues(colours):
    return np.array([colorsys.rgb_to_hsv(*colour)[0] for colour in colours / 255])


@functools.cache
def turns(count=600):
    """How far each example's hues were turned."""
    image = picture('noise')[:24, :32]
    saturated = (image.max(axis=-1) > 220) & (image.min(axis=-1) < 30)
    assert saturated.sum() > 30
    before = hues(image[saturated])
    after = np.array([hues(x[saturated]) for x in jittered(image, count, 3)])
    difference = (after - before + 0.5) % 1 - 0.5
    assert difference.std(axis=1).max() < 2e-3
    return difference.mean(axis=1)


def turned(image, turn):
    """In float64, pixel by pixel."""
    return 255 * np.array(
        [
            colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
            for hue, saturation, value in (
                colorsys.rgb_to_hsv(*colour) for colour in image.reshape(-1, 3) / 255
            )
        ]
    ).reshape(image.shape)


@pytest.mark.parametrize('i', range(3))
def test_brightness_contrast_and_saturation_are_pillows_by_uniform_factors(i):
    assert_uniform(factors(i), 1 - JITTER[i], 1 + JITTER[i])


def test_hues_are_turned_by_uniform_angles():
    assert_uniform(turns(), -JITTER[3], JITTER[3])


def test_the_hue_alone_changes():
    image = picture('photo')[16:40, :32]
    for got, turn in zip(jittered(image, 600, 3)[:8], turns(), strict=False):
        exact = turned(image, turn)
        assert abs(got - exact).max() < 0.5 + 0.1  # rounded, and the turn is not known exactly


def test_the_four_are_drawn_independently():
    draws = [*map(factors, range(3)), turns()]
    for one, other in itertools.combinations(draws, 2):
        assert scipy.stats.spearmanr(one, other).pvalue > LEAST_P


def test_all_of_the_jitter_is_one_after_the_other():
    image = picture('photo')[16:40, :32]
    for got, *amounts, turn in zip(
        jittered(image, 600, 0, 1, 2, 3)[:20], *map(factors, range(3)), turns(), strict=False
    ):
        expected = pillow(image)
        for enhancer, factor in zip(ENHANCERS, amounts, strict=True):
            expected = enhancer(expected).enhance(factor)
        difference = abs(got - turned(pixels(expected), turn))
        # Rounded to a level, and the factors are not known exactly.
        assert difference.max() < 2.5 and difference.mean() < 0.15


def test_grey_has_no_saturation_and_no_hue():
    image = picture('photo, grey')[:6, :8]
    augmented, _ = run(copies(image, 20), color_jitter=(0.0, 0.0, 1.0, 0.5))
    np.testing.assert_array_equal(augmented, copies(image, 20))
