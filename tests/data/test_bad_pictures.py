"""Bytes that are no picture, or a hostile one: one line that names it, and nothing is run."""

import struct

import numpy as np
import pytest
from pictures import encode, png_header
from PIL import Image

from vit_jax.data.jpeg import _height_offset as height_offset
from vit_jax.data.picture import decode_crop, decode_picture
from vit_jax.errors import InputError


def bad_files():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    whole = Image.fromarray(noise)
    jpeg, png = encode(whole), encode(whole, 'png')
    bomb = bytearray(encode(Image.new('RGB', (8, 8))))
    at = height_offset(bytes(bomb))
    bomb[at : at + 4] = struct.pack('>HH', 65000, 65000)
    return {
        'an empty file': b'',
        'a text file': b'not a picture',
        'a truncated JPEG': jpeg[: len(jpeg) // 2],
        'a JPEG header alone': jpeg[:200],
        'a JPEG without its start': jpeg[10:],
        'a truncated progressive JPEG': encode(whole, progressive=True)[: len(jpeg) // 2],
        'a truncated PNG': png[: len(png) // 2],
        'a truncated WebP': encode(whole, 'webp')[:100],
        'a JPEG bomb': bytes(bomb),
        'a PNG bomb': png_header(60000, 60000) + png[33:],
        'a 16-bit picture': encode(Image.new('I;16', (5, 5)), 'png'),
        'zeros': bytes(1000),
    }


@pytest.mark.parametrize('data', bad_files().values(), ids=bad_files())
def test_bad_pictures_are_named(data):
    with pytest.raises(InputError, match='^photo: expected a picture') as error:
        decode_picture(data, 'photo')
    assert '\n' not in str(error.value)
    with pytest.raises(InputError, match='^photo: expected a picture'):
        decode_crop(data, 'photo', lambda height, width: (0, 0, height, width), (4, 4))


def test_no_program_is_run_for_a_picture():
    """Pillow would hand PostScript to Ghostscript."""
    with pytest.raises(InputError, match='its format is unknown'):
        decode_picture(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n', 'picture')
