import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from vit_jax.data.preprocess import Preprocessing
from vit_jax.errors import InputError


def test_normalize_follows_its_formula():
    preprocessing = Preprocessing((2, 2), 3, (0.4, 0.5, 0.6), (0.1, 0.2, 0.3))
    images = np.random.default_rng(0).integers(0, 256, (4, 2, 2, 3), np.uint8)
    expected = (images / 255 - np.array([0.4, 0.5, 0.6])) / np.array([0.1, 0.2, 0.3])
    np.testing.assert_allclose(preprocessing.normalize(jnp.asarray(images)), expected, rtol=1e-5)


def test_resize_equals_pillows_bilinear_for_every_kind_of_picture():
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (9, 13, 3), np.uint8))
    preprocessing = Preprocessing((4, 6), 3, (0.5,), (0.5,))
    expected = np.asarray(colour.resize((6, 4), Image.Resampling.BILINEAR))
    for picture in (colour, np.asarray(colour), colour.convert('RGBA')):
        np.testing.assert_array_equal(preprocessing.resize(picture), expected)
    grey = colour.convert('L')
    for picture in (grey, np.asarray(grey), np.asarray(grey)[..., None]):
        resized = preprocessing.resize(picture)
        assert resized.shape == (4, 6, 3)
        np.testing.assert_array_equal(resized[..., 0], resized[..., 2])
    assert Preprocessing((4, 6), 1, (0.5,), (0.5,)).resize(colour).shape == (4, 6, 1)


def test_picture_of_the_right_size_is_unchanged():
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 1), np.uint8)
    preprocessing = Preprocessing((4, 6), 1, (0.5,), (0.5,))
    np.testing.assert_array_equal(preprocessing.resize(image), image)


@pytest.mark.parametrize(
    'picture',
    [np.zeros((4, 6, 3), np.float32), np.zeros((4, 6, 5), np.uint8), np.zeros(4, np.uint8)],
)
def test_arrays_of_wrong_dtype_or_shape_raise(picture):
    with pytest.raises(InputError, match='expected uint8'):
        Preprocessing((4, 6), 3, (0.5,), (0.5,)).resize(picture)


@pytest.mark.parametrize(
    'arguments, message',
    [
        ((3, (0.5, 0.5), (0.5,)), 'data.mean'),
        ((1, (0.5,), (0.0,)), 'data.std'),
        ((2, (0.5,), (0.5,)), '1 or 3 channels'),
    ],
)
def test_wrong_normalisation_raises(arguments, message):
    with pytest.raises(InputError, match=message):
        Preprocessing((4, 6), *arguments)


@pytest.mark.parametrize('mode', ['I;16', 'I', 'F'])
def test_pictures_of_more_than_8_bits_raise(mode):
    """Pillow would clip them at 255."""
    with pytest.raises(InputError, match='8 bits per channel'):
        Preprocessing((4, 6), 1, (0.5,), (0.5,)).resize(Image.new(mode, (6, 4)))


@pytest.mark.parametrize(
    'size, picture_size',
    [
        ((6, 6), (20, 30)),
        ((6, 6), (30, 20)),
        ((6, 6), (20, 20)),
        ((6, 12), (20, 40)),
        ((6, 12), (40, 40)),
    ],
)
def test_crop_fraction_equals_resize_and_centre_crop(size, picture_size):
    """One resampling equals resizing, such that the crop is 0.75 of what fits, and cropping."""
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8))
    picture = smooth.resize(picture_size[::-1], Image.Resampling.BICUBIC)
    preprocessing = Preprocessing(size, 3, (0.5,), (0.5,), crop_fraction=0.75)
    factor = max(size[0] / picture_size[0], size[1] / picture_size[1]) / 0.75
    height, width = (round(factor * side) for side in picture_size)
    resized = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
    top, left = (height - size[0]) / 2, (width - size[1]) / 2
    assert top % 1 == left % 1 == 0  # otherwise the reference's crop is half a pixel off centre
    expected = resized[int(top) :][: size[0], int(left) :][:, : size[1]]
    got = preprocessing.resize(picture)
    assert np.abs(got.astype(int) - expected).max() <= 2


def test_crop_fraction_1_keeps_the_shorter_side():
    picture = np.zeros((4, 8, 3), np.uint8)
    picture[:, 2:6] = 200
    resized = Preprocessing((4, 4), 3, (0.5,), (0.5,), crop_fraction=1.0).resize(picture)
    np.testing.assert_array_equal(resized, 200)
    with pytest.raises(InputError, match='crop_fraction: expected 0 to 1, got 1.5'):
        Preprocessing((4, 4), 3, (0.5,), (0.5,), crop_fraction=1.5)


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('given', [1, 3, 4])
def test_centre_crop_is_inside_pictures_of_any_size(channels, given):
    """Rounding does not move it outside."""
    preprocessing = Preprocessing((224, 224), channels, (0.5,), (0.5,), crop_fraction=1.0)
    for size in [(116, 116), (500, 116), (1024, 123), (116, 500), (7, 7 + given)]:
        assert preprocessing.resize(np.zeros((*size, given), np.uint8)).shape[:2] == (224, 224)


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize('given', [1, 3, 4])
def test_recolour_equals_resize_at_the_same_size(channels, given):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, given), np.uint8)
    preprocessing = Preprocessing((4, 6), channels, (0.5,), (0.5,))
    np.testing.assert_array_equal(preprocessing.recolour(pixels), preprocessing.resize(pixels))
