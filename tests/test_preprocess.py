import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from vit_jax.errors import InputError
from vit_jax.preprocess import Preprocessing, read_picture


def test_normalize_is_the_formula():
    preprocessing = Preprocessing((2, 2), 3, (0.4, 0.5, 0.6), (0.1, 0.2, 0.3))
    images = np.random.default_rng(0).integers(0, 256, (4, 2, 2, 3), np.uint8)
    expected = (images / 255 - np.array([0.4, 0.5, 0.6])) / np.array([0.1, 0.2, 0.3])
    np.testing.assert_allclose(preprocessing.normalize(jnp.asarray(images)), expected, rtol=1e-5)


def test_resize_is_pillows_bilinear_for_every_kind_of_picture():
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


def test_a_picture_of_the_right_size_is_left_alone():
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 1), np.uint8)
    preprocessing = Preprocessing((4, 6), 1, (0.5,), (0.5,))
    np.testing.assert_array_equal(preprocessing.resize(image), image)


@pytest.mark.parametrize(
    'picture',
    [np.zeros((4, 6, 3), np.float32), np.zeros((4, 6, 5), np.uint8), np.zeros(4, np.uint8)],
)
def test_arrays_that_are_no_pictures_are_told(picture):
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
def test_wrong_normalisation_is_told(arguments, message):
    with pytest.raises(InputError, match=message):
        Preprocessing((4, 6), *arguments)


def test_files_that_are_no_pictures_are_told(tmp_path):
    Image.new('RGB', (40, 40), 'red').save(tmp_path / 'whole.png')
    (tmp_path / 'cut.png').write_bytes((tmp_path / 'whole.png').read_bytes()[:60])
    (tmp_path / 'text.jpg').write_text('not a picture')
    (tmp_path / 'empty.png').touch()
    for name in ('cut.png', 'text.jpg', 'empty.png', 'missing.png', '.'):
        with pytest.raises(InputError, match=name):
            read_picture(str(tmp_path / name))
    assert read_picture(str(tmp_path / 'whole.png')).size == (40, 40)


def test_pictures_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned a quarter to the right
    Image.new('L', (10, 20)).save(tmp_path / 'turned.jpg', exif=exif)
    assert read_picture(tmp_path / 'turned.jpg').size == (20, 10)


@pytest.mark.parametrize('mode', ['I;16', 'I', 'F'])
def test_pictures_of_more_than_8_bits_are_refused(mode):
    """Pillow would cut them off at 255."""
    with pytest.raises(InputError, match='8 bits a channel'):
        Preprocessing((4, 6), 1, (0.5,), (0.5,)).resize(Image.new(mode, (6, 4)))
