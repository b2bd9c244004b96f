"""Each operation equals Pillow's, with all operations in one compiled batch.

Pillow computes maps in fixed point, blends in float32 and autocontrast in float64, and XLA fuses a
product and a sum into one rounding. So a coordinate on the border of two pixels, or a mixture that
is a whole number up to the last bit, may go either way. The tests determine where, and require
everything else to be equal.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from references.pillow import ENHANCERS, by_pillow, picture, pillow, pixels

from vit_jax.augment import operations
from vit_jax.augment.operations import OPERATIONS, apply_operation, grey

MAPS = ('shear_x', 'shear_y', 'translate_x', 'translate_y', 'rotate')


TABLES = ('posterize', 'solarize', 'equalize', 'invert', 'identity')


SHEARS = [0, 0.3, -0.3, 0.25, 0.5, 0.99, -0.99, 0.0123, 0.21, -0.7]


TRANSLATIONS = [0, 1, -1, 0.49, 0.51, -2.6, 13.7, -30.2, 48, -64, 100]


FACTORS = [0, 1, 2, 0.5, 1.5, 0.1, 0.37, 0.6, 0.77, 0.8, 1.01, 1.1, 1.2, 1.23, 1.7, 1.9, 1.99]


EXACT_FACTORS = FACTORS[:5]  # whose products need at most 24 bits


VALUES = {
    'shear_x': SHEARS,
    'shear_y': SHEARS,
    'translate_x': TRANSLATIONS,
    'translate_y': TRANSLATIONS,
    'rotate': [0, 180, -180, 1, -3.3, 10, 12.34, 30, -30, 77, -89.9, 90.1, 100, 123, -135, 150],
    **dict.fromkeys(ENHANCERS, FACTORS),
    'posterize': list(range(9)),
    'solarize': [0, 1, 17.5, 100.2, 128, 255, 256],
}


CASES = [(name, value) for name in OPERATIONS for value in VALUES.get(name, [0])]


SMALL = [(1, 9, 3), (9, 1, 1), (1, 1, 3), (2, 3, 1), (16, 17, 1), (6, 5, 3)]


PICTURES = ['photo', 'photo, grey', 'noise', 'noise, grey']


apply_batch = jax.jit(jax.vmap(apply_operation))


def apply_cases(image, cases):
    """Applies each case to a copy of the image, in one batch."""
    operations = np.array([OPERATIONS.index(name) for name, _ in cases], np.int32)
    values = np.array([value for _, value in cases], np.float32)
    images = np.broadcast_to(image, (len(cases), *image.shape))
    return np.asarray(apply_batch(images, operations, values))


@functools.cache
def all_results(name):
    return dict(zip(CASES, apply_cases(picture(name), CASES), strict=True))


def results(name, operation):
    """Yields (value, our result, Pillow's) for one picture and operation."""
    for value in VALUES.get(operation, [0]):
        as_float32 = float(np.float32(value))
        expected = by_pillow(picture(name), operation, as_float32)
        yield as_float32, all_results(name)[operation, value], expected


@pytest.mark.parametrize('operation', [*TABLES, 'translate_x', 'translate_y'])
@pytest.mark.parametrize('name', PICTURES)
def test_tables_and_translations_equal_pillow(name, operation):
    for value, got, expected in results(name, operation):
        np.testing.assert_array_equal(got, expected, err_msg=str(value))


def source(operation, value, height, width):
    """Each pixel's source coordinates in float64: columns and rows."""
    y, x = np.mgrid[:height, :width] + 0.5
    if operation == 'shear_x':
        return x + value * y, y
    if operation == 'shear_y':
        return x, y + value * x
    # Counterclockwise on the screen, where y points down, and inverted.
    cos, sin = math.cos(math.radians(value)), math.sin(math.radians(value))
    x, y = x - width / 2, y - height / 2
    return width / 2 + cos * x - sin * y, height / 2 + sin * x + cos * y


@pytest.mark.parametrize('operation', ['shear_x', 'shear_y', 'rotate'])
@pytest.mark.parametrize('name', PICTURES)
def test_maps_equal_pillow_except_on_pixel_borders(name, operation):
    height, width, _ = picture(name).shape
    for value, got, expected in results(name, operation):
        differs = (got != expected).any(axis=-1)
        coordinates = np.stack(source(operation, value, height, width))
        # Pillow's coefficients are multiples of 2 ** -16.
        border = abs(coordinates - np.round(coordinates)) < (width + height + 2) * 2**-17
        assert not (differs & ~border.any(axis=0)).any(), value
        assert differs.mean() < 0.02
        if value in (0, 180, -180):
            assert not differs.any()


@pytest.mark.parametrize('operation', ENHANCERS)
@pytest.mark.parametrize('name', PICTURES)
def test_blends_equal_pillow_except_where_the_last_bit_decides(name, operation):
    image = pillow(picture(name))
    other = pixels(ENHANCERS[operation](image).degenerate).astype(float)
    for value, got, expected in results(name, operation):
        difference = abs(got.astype(int) - expected)
        if value in EXACT_FACTORS:
            assert not difference.any(), value
        mixture = other + value * (picture(name) - other)
        undecided = abs(mixture - np.round(mixture)) < 2.5e-5
        assert (difference <= undecided).all(), value
        assert difference.mean() < 0.04, value


@pytest.mark.parametrize('name', PICTURES)
def test_autocontrast_rounds_down_as_pillow_intends(name):
    """In float64 Pillow misses some whole numbers by a bit, and ends up one level lower."""
    ((_, got, expected),) = results(name, 'autocontrast')
    image = picture(name).astype(int)
    low, high = image.min(axis=(0, 1)), image.max(axis=(0, 1))
    np.testing.assert_array_equal(got, (image - low) * 255 // (high - low))
    missed = got.astype(int) - expected
    assert (missed >= 0).all() and (missed <= ((image - low) * 255 % (high - low) == 0)).all()


def edge_images(height, width, channels):
    """Constant, of two values whose mean is a half, of two close values, and noise."""
    shape = height, width, channels
    constant = [np.full(shape, value, np.uint8) for value in (0, 1, 127, 255)]
    stripes = np.arange(height * width).reshape(height, width, 1) % 2 * np.ones(shape, int)
    noise = np.random.default_rng(0).integers(0, 256, shape)
    return [*constant, *(x.astype(np.uint8) for x in (stripes, 100 + 55 * stripes, noise))]


@pytest.mark.parametrize('shape', SMALL)
def test_tiny_and_flat_images_equal_pillow(shape):
    cases = [
        (name, value)
        for name in OPERATIONS
        for value in VALUES.get(name, [0])
        if name not in ENHANCERS or value in EXACT_FACTORS
        if name != 'rotate' or value in (0, 180, -3.3, 12.34, 77, 123)
    ]
    for image in edge_images(*shape):
        for (name, value), got in zip(cases, apply_cases(image, cases), strict=True):
            expected = by_pillow(image, name, float(np.float32(value)))
            allowed = 1 if name == 'autocontrast' else 0  # see its test
            difference = abs(got.astype(int) - expected)
            assert difference.max() <= allowed, (name, value, image[..., 0])


def test_quarter_turns_of_a_square_are_exact():
    image = picture('noise')[:, :48]
    cases = [('rotate', value) for value in (90, -90, 180, -180, 270)]
    for (_, value), got in zip(cases, apply_cases(image, cases), strict=True):
        np.testing.assert_array_equal(got, np.rot90(image, value // 90))


def test_grey_equals_pillow():
    image = np.random.default_rng(1).integers(0, 256, (100, 1000, 3), np.uint8)
    expected = pillow(image).convert('L')
    np.testing.assert_array_equal(grey(jax.numpy.asarray(image)), pixels(expected))
    single = jax.numpy.asarray(pixels(expected))
    np.testing.assert_array_equal(grey(single), single)


def test_fractional_bits_are_rounded():
    cases = [('posterize', bits) for bits in (4.4, 4.6, 7.9, -0.3, 8.4)]
    image = picture('noise')
    for got, bits in zip(apply_cases(image, cases), (4, 5, 8, 0, 8), strict=True):
        np.testing.assert_array_equal(got, by_pillow(image, 'posterize', bits))


def test_mean_of_a_large_image_is_exact():
    """It is rounded correctly even if the sum exceeds what float32 can hold exactly."""
    image = np.full((384, 384, 1), 200, np.uint8)
    for count, mean in ((384 * 384 // 2 - 1, 200), (384 * 384 // 2, 201)):
        image.reshape(-1)[:count] = 201
        table = operations.contrast_table(jnp.asarray(image), jnp.float32(0))
        assert set(np.asarray(table).tolist()) == {mean}


@pytest.mark.parametrize('sigma', [0.1, 0.5, 1.3, 2.0])
def test_blur_is_a_gaussian_that_repeats_the_border(sigma):
    image = picture('noise')
    expected = scipy.ndimage.gaussian_filter(
        image.astype(float), (sigma, sigma, 0), mode='nearest', radius=(6, 6, 0)
    )
    got = operations.gaussian_blur(jnp.asarray(image), jnp.float32(sigma))
    assert abs(got - expected).max() < 0.5 + 1e-3  # rounded
