import colorsys
import functools
import itertools

import numpy as np
import pytest
import scipy.stats
from augmenting import MIN_P, assert_uniform, copies, run
from PIL import ImageEnhance
from references.pillow import picture, pillow, pixels

JITTER = (0.4, 0.7, 0.9, 0.2)


ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


def jittered(image, count, *on):
    """Copies of an image, jittered by one or more of the four amounts."""
    options = tuple(amount if i in on else 0.0 for i, amount in enumerate(JITTER))
    return run(copies(image, count), color_jitter=options)[0]


@functools.cache
def factors(i, count=600):
    """Each example's factor, inferred from its pixels; with it, Pillow gives the same image."""
    image = picture('noise')[:24, :32]
    other = pixels(ENHANCERS[i](pillow(image)).degenerate).astype(float)
    distance = image - other
    pixel = distance != 0
    found = []
    for got in jittered(image, count, i).astype(float):
        # Truncated to a whole number: got <= other + factor * distance < got + 1.
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
def hue_shifts(count=600):
    """By how much each example's hues were shifted."""
    image = picture('noise')[:24, :32]
    saturated = (image.max(axis=-1) > 220) & (image.min(axis=-1) < 30)
    assert saturated.sum() > 30
    before = hues(image[saturated])
    after = np.array([hues(x[saturated]) for x in jittered(image, count, 3)])
    difference = (after - before + 0.5) % 1 - 0.5
    assert difference.std(axis=1).max() < 2e-3
    return difference.mean(axis=1)


def shift_hues(image, shift):
    """Shifts the hues in float64, pixel by pixel."""
    return 255 * np.array(
        [
            colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value)
            for hue, saturation, value in (
                colorsys.rgb_to_hsv(*colour) for colour in image.reshape(-1, 3) / 255
            )
        ]
    ).reshape(image.shape)


@pytest.mark.parametrize('i', range(3))
def test_brightness_contrast_and_saturation_equal_pillow_with_uniform_factors(i):
    assert_uniform(factors(i), 1 - JITTER[i], 1 + JITTER[i])


def test_hue_shifts_are_uniform():
    assert_uniform(hue_shifts(), -JITTER[3], JITTER[3])


def test_hue_jitter_changes_only_the_hue():
    image = picture('photo')[16:40, :32]
    for got, shift in zip(jittered(image, 600, 3)[:8], hue_shifts(), strict=False):
        exact = shift_hues(image, shift)
        assert abs(got - exact).max() < 0.5 + 0.1  # rounding, and the shift is inexact


def test_the_four_amounts_are_drawn_independently():
    draws = [*map(factors, range(3)), hue_shifts()]
    for one, other in itertools.combinations(draws, 2):
        assert scipy.stats.spearmanr(one, other).pvalue > MIN_P


def test_the_four_jitters_are_applied_in_sequence():
    image = picture('photo')[16:40, :32]
    for got, *amounts, shift in zip(
        jittered(image, 600, 0, 1, 2, 3)[:20], *map(factors, range(3)), hue_shifts(), strict=False
    ):
        expected = pillow(image)
        for enhancer, factor in zip(ENHANCERS, amounts, strict=True):
            expected = enhancer(expected).enhance(factor)
        difference = abs(got - shift_hues(pixels(expected), shift))
        # Each step rounds to a level, and the factors are inexact.
        assert difference.max() < 2.5 and difference.mean() < 0.15


def test_saturation_and_hue_jitter_leave_grey_unchanged():
    image = picture('photo, grey')[:6, :8]
    augmented, _ = run(copies(image, 20), color_jitter=(0.0, 0.0, 1.0, 0.5))
    np.testing.assert_array_equal(augmented, copies(image, 20))
