import contextlib
import io
import struct
from functools import partial

import cv2
import numpy as np
import pytest
import simplejpeg
from pictures import encode
from PIL import ExifTags, Image, ImageOps
from sklearn.datasets import load_sample_image

from vit_jax.data.jpeg import _height_offset as height_offset
from vit_jax.data.jpeg import count_scans
from vit_jax.data.picture import decode_crop, decode_picture, read_picture
from vit_jax.errors import InputError


@pytest.fixture(scope='module')
def photo():
    return Image.fromarray(load_sample_image('china.jpg'))  # 640 x 427


def decode_by_pillow(data):
    """Pillow's pixels, upright and in RGB."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert('RGB'))


JPEGS = {
    'chroma halved': dict(subsampling='4:2:0'),
    'chroma whole': dict(subsampling='4:4:4'),
    'progressive': dict(progressive=True),
    'with restart markers': dict(restart_marker_rows=2),
}


@pytest.mark.parametrize('options', JPEGS.values(), ids=JPEGS)
def test_jpegs_decode_as_in_pillow(photo, options):
    data = encode(photo, quality=90, **options)
    np.testing.assert_array_equal(decode_picture(data, 'photo'), decode_by_pillow(data))


@pytest.mark.parametrize('mode', ['L', '1', 'LA', 'P', 'RGBA', 'RGB', 'CMYK'])
@pytest.mark.parametrize('format', ['png', 'webp', 'jpeg', 'tiff', 'gif'])
def test_other_formats_and_colour_modes_decode_as_in_pillow(photo, mode, format):
    image = photo.resize((40, 30)).convert(mode)
    if mode in ('LA', 'RGBA'):
        image.putalpha(100)
    try:
        data = encode(image, format)
    except (OSError, ValueError):
        pytest.skip('Pillow does not write these')
    decoded = decode_picture(data, 'picture')
    assert decoded.shape[-1] == (1 if Image.open(io.BytesIO(data)).mode in ('1', 'L', 'LA') else 3)
    np.testing.assert_array_equal(np.broadcast_to(decoded, (30, 40, 3)), decode_by_pillow(data))


def test_palette_with_a_transparent_colour_decodes_without_a_warning(photo):
    data = encode(photo.resize((40, 30)).convert('P'), 'png', transparency=b'\x00\x80')
    expected = np.asarray(Image.open(io.BytesIO(data)).convert('RGBA').convert('RGB'))
    np.testing.assert_array_equal(decode_picture(data, 'picture'), expected)


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('format', ['jpeg', 'png', 'webp'])
def test_pictures_are_rotated_upright(photo, orientation, format):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encode(photo.resize((64, 48)), format, exif=exif)
    expected = decode_by_pillow(data)
    np.testing.assert_array_equal(decode_picture(data, 'photo'), expected)
    height, width = expected.shape[:2]
    seen = []

    def choose(*size):
        seen.append(size)
        return 4, 8, height - 10, width - 20

    part = decode_crop(data, 'photo', choose, (height - 10, width - 20))
    assert set(seen) == {(height, width)}
    np.testing.assert_array_equal(part, expected[4 : height - 6, 8 : width - 12])


@pytest.mark.parametrize('options', JPEGS.values(), ids=JPEGS)
@pytest.mark.parametrize('box', [(0, 0, 427, 640), (100, 200, 150, 130), (300, 0, 127, 90)])
def test_crop_equals_that_of_the_whole_picture(photo, options, box):
    data = encode(photo, quality=90, **options)
    top, left, height, width = box
    whole = decode_by_pillow(data)
    expected = whole[top : top + height, left : left + width]
    for to_end in (False, True):
        part = decode_crop(data, 'photo', lambda *size: box, (height, width), to_end=to_end)
        np.testing.assert_array_equal(part, expected)
    size = 1 + height // 3, 1 + width // 3  # decoded at a lower resolution
    parts = [
        decode_crop(data, 'photo', lambda *_: box, size, to_end=to_end) for to_end in (False, True)
    ]
    np.testing.assert_array_equal(*parts)


def test_only_the_rows_down_to_the_crop_are_decoded(photo, monkeypatch):
    sizes = []

    def spy(*args, **options):
        pixels = decode(*args, **options)
        sizes.append(pixels.shape[:2])
        return pixels

    decode = simplejpeg.decode_jpeg
    monkeypatch.setattr(simplejpeg, 'decode_jpeg', spy)
    crop = partial(decode_crop, to_end=False)
    crop(encode(photo), 'photo', lambda *size: (20, 10, 100, 100), (100, 100))
    assert sizes == [(121, 640)]
    sizes.clear()
    crop(encode(photo), 'photo', lambda *size: (0, 0, 399, 600), (99, 99))
    assert sizes == [(100, 160)]  # a quarter of the resolution
    sizes.clear()
    crop(encode(photo, progressive=True), 'photo', lambda *size: (0, 0, 99, 99), (99, 99))
    decode_crop(encode(photo), 'photo', lambda *size: (0, 0, 99, 99), (99, 99))
    assert sizes == [(427, 640), (427, 640)]


@pytest.mark.parametrize('shrink', [2.2, 3, 5])
def test_crop_decoded_at_lower_resolution_is_in_place(photo, shrink):
    top, left, height, width = box = (40, 60, 360, 500)
    size = round(height / shrink), round(width / shrink)
    part = decode_crop(encode(photo, quality=95), 'photo', lambda *_: box, size)
    expected = photo.resize(
        size[::-1], Image.Resampling.BOX, (left, top, left + width, top + height)
    )
    difference = np.abs(part.astype(int) - np.asarray(expected))
    shifted = np.abs(part.astype(int) - np.roll(expected, 1, axis=1))
    assert difference.mean() < 8 < shifted.mean()


@pytest.mark.parametrize('seed', range(20))
def test_damage_is_found_in_whole_pictures_and_for_crops_alike(photo, seed):
    """Bits flipped in the scan: either libjpeg warns, and both raise, or neither does."""
    rng = np.random.default_rng(seed)
    data = bytearray(encode(photo, quality=90))
    data[rng.integers(len(data) // 2, len(data) - 2)] ^= 1 << rng.integers(8)
    raised = []
    crop = partial(decode_crop, choose=lambda *_: (0, 0, 8, 8), image_size=(8, 8))
    for check in (decode_picture, crop):
        try:
            check(bytes(data), 'photo')
        except InputError as error:
            assert 'photo: expected a picture, but it is damaged: ' in str(error)
            raised.append(check)
    assert len(raised) in (0, 2)
    if seed == 0:
        assert raised


def test_jpegs_that_simplejpeg_does_not_know_are_decoded_by_pillow(photo):
    """4:4:1, made of a 4:1:1 of one row of blocks by turning its geometry."""
    pixels = np.asarray(photo.resize((32, 8)))
    data = bytearray(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), colorsubsampling='411'))
    at = height_offset(bytes(data))
    data[at : at + 4] = struct.pack('>HH', 32, 8)
    assert data[at + 6] == 0x41
    data[at + 6] = 0x14
    assert decode_picture(bytes(data), 'photo').shape == (32, 8, 3)


def test_bombs_are_refused_before_they_take_memory_or_time(photo):
    image = Image.new('1', (8192, 8193))
    for data in (encode(image, 'png'), encode(image.convert('L'))):
        assert len(data) < 2**20
        with pytest.raises(InputError, match=r'bomb: expected .* at most 67,108,864 pixels, got 8'):
            decode_picture(data, 'bomb')
    cut = encode(Image.new('1', (20_000, 20_000)), 'png')[:300]
    with pytest.raises(InputError, match='truncated'):  # Pillow's own limit is lower
        decode_picture(cut, 'large', max_pixels=2**30)
    data = encode(photo.resize((60, 40)), 'jpeg2000')
    assert decode_picture(data, 'photo', max_pixels=4800).shape == (40, 60, 3)
    with pytest.raises(InputError, match=r'got 60 x 40 in JPEG 2000, which counts twice'):
        decode_picture(data, 'photo', max_pixels=4799)
    data = encode(photo.resize((1600, 1200)), progressive=True)
    last = data.rindex(b'\xff\xda')
    scans = data[:last] + 500 * data[last:-2] + data[-2:]
    with pytest.raises(InputError, match=r'bomb: .* got 1600 x 1200 in 5\d\d scans'):
        decode_picture(scans, 'bomb')


def test_scans_of_a_sequential_jpeg_are_counted_unless_the_first_holds_everything(photo):
    data = encode(photo)
    assert count_scans(data + 99 * b'\xff\xda') == 1
    at = data.index(b'\xff\xda')
    grey_first = data[: at + 4] + b'\1' + data[at + 5 :]  # one component of three
    assert count_scans(grey_first + 99 * b'\xff\xda') == 100


def test_orientation_is_read_behind_fill_bytes_and_from_xmp(photo):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image = photo.resize((64, 48))
    filled = encode(image, exif=exif).replace(b'\xff\xe1', b'\xff\xff\xff\xe1', 1)
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    for data in (filled, encode(image, xmp=xmp)):
        assert decode_picture(data, 'photo').shape == (64, 48, 3)


def test_tiff_is_turned_upright_once(photo):
    image = photo.resize((64, 48))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    decoded = decode_picture(encode(image, 'tiff', exif=exif), 'photo')
    np.testing.assert_array_equal(decoded, np.rot90(np.asarray(image), -1))


@pytest.mark.parametrize('ending', ['.png', '.tiff'])
@pytest.mark.parametrize('channels', [1, 3])
def test_more_than_8_bits_per_channel_are_refused(ending, channels):
    pixels = np.zeros((8, 8, channels), np.uint16)
    data = cv2.imencode(ending, pixels)[1].tobytes()
    with pytest.raises(InputError, match='more than 8 bits per channel'):
        decode_picture(data, 'picture')


def test_damage_raises_only_input_errors(photo):
    """Random bytes of real files are replaced."""
    rng = np.random.default_rng(0)
    small = photo.resize((32, 24))
    for data in (encode(small), encode(small, progressive=True), encode(small, 'png')):
        for _ in range(150):
            damaged = bytearray(data)
            for at in rng.integers(0, len(data), 4):
                damaged[at] = rng.integers(256)
            for decode in (
                lambda x: decode_picture(x, 'photo'),
                lambda x: decode_crop(x, 'photo', lambda h, w: (0, 0, h, w), (8, 8)),
            ):
                with contextlib.suppress(InputError):
                    assert decode(bytes(damaged)).dtype == np.uint8


def test_unreadable_files_raise(tmp_path):
    for name, message in (('missing.png', 'no such file'), ('.', 'expected a file')):
        with pytest.raises(InputError, match=message):
            read_picture(tmp_path / name)


def test_orientation_after_other_segments_is_found(photo):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    data = encode(photo.resize((64, 48)), exif=exif)
    data = data[:2] + b'\xff\xe2' + struct.pack('>H', 60_002) + bytes(60_000) + data[2:]
    assert decode_picture(data, 'photo').shape == (64, 48, 3)
    np.testing.assert_array_equal(decode_picture(data, 'photo'), decode_by_pillow(data))


@pytest.mark.parametrize('size', [(33, 2000), (2000, 33), (67, 3000)])
@pytest.mark.parametrize('orientation', [1, 6])
def test_crops_of_long_strips_are_in_place(size, orientation):
    """Each side is scaled by its own rounded factor."""
    ramp = np.linspace(0, 255, max(size), dtype=np.uint8)
    pixels = np.broadcast_to(ramp[:, None] if size[0] > size[1] else ramp[None], size)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encode(Image.fromarray(np.repeat(pixels[..., None], 3, -1)), quality=95, exif=exif)
    upright = decode_by_pillow(data).astype(float)
    height, width = upright.shape[:2]
    for share in (0.0, 0.5, 0.9):
        box = int(share * height), int(share * width), -(-height // 10), -(-width // 10)
        box = (0 if height < 100 else box[0], 0 if width < 100 else box[1], *box[2:])
        box = (*box[:2], height if height < 100 else box[2], width if width < 100 else box[3])
        part = decode_crop(data, 'photo', lambda *_, box=box: box, (8, 8)).astype(float)
        expected = upright[box[0] : box[0] + box[2], box[1] : box[1] + box[3]]
        assert abs(part.mean() - expected.mean()) < 2
