"""Picture files as pixels: JPEG by `vit_jax.data.jpeg`, everything else by Pillow.

JPEG is the common case and the slow one. Whatever its decoder does not take goes to Pillow, which
also decides what counts as damaged.
"""

import io
import os
import stat
from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, UnidentifiedImageError

from vit_jax.data.jpeg import (
    UPRIGHT,
    Box,
    Jpeg,
    count_scans,
    decode_jpeg,
    decode_jpeg_around,
    read_header,
)
from vit_jax.errors import InputError

Image.init()  # registers Pillow's formats
PILLOW_FORMATS = tuple(  # none runs programs
    name
    for name in ('BMP', 'GIF', 'JPEG', 'JPEG2000', 'PNG', 'PPM', 'TIFF', 'WEBP', 'AVIF')
    if name in Image.OPEN  # AVIF came with Pillow 11.3
)
# Of picture files, in lower case: where a folder is searched, the others are left out.
ENDINGS = frozenset(
    ending for ending, name in Image.registered_extensions().items() if name in PILLOW_FORMATS
)
MAX_PIXELS = 2**26  # of a picture, by default; a larger one may be a decompression bomb
USUAL_SCANS = 12  # of a progressive JPEG, each of which passes over all pixels
# Twice the memory and time of other formats: its decoder holds 32 bits per channel.
JPEG2000 = (b'\0\0\0\x0cjP  ', b'\xff\x4f\xff\x51')

cv2.setNumThreads(1)  # the data pipeline has its own threads


def read_picture(
    path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS
) -> UInt8[np.ndarray, 'h w c']:
    """Reads and decodes a picture file.

    Raises:
      InputError: if there is no such file, and see `decode_picture`.
    """
    return decode_picture(read_bytes(path), os.fspath(path), max_pixels)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The content of a file.

    Raises:
      InputError: if it cannot be read.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # reading a pipe might never end
            raise InputError(f'{path}: expected a file')
        with open(path, 'rb') as file:
            return file.read()
    except FileNotFoundError:
        raise InputError(f'{path}: no such file') from None
    except OSError as error:
        raise InputError(
            f'{path}: expected a file, but it cannot be read: {error.strerror}'
        ) from None


def decode_picture(
    data: bytes,
    name: str,
    max_pixels: int = MAX_PIXELS,
    formats: tuple[str, ...] = PILLOW_FORMATS,
) -> UInt8[np.ndarray, 'h w c']:
    """Decodes a picture and turns it upright by its EXIF orientation.

    Args:
      data: content of a file.
      name: of the picture, for errors.
      max_pixels: that it may have. What takes as long as more pixels counts as more: a JPEG of
        unusually many scans, and JPEG 2000.
      formats: that Pillow may take it for.

    Returns:
      Grey (c = 1) or RGB (c = 3). Palettes and CMYK become RGB; transparency is dropped.

    Raises:
      InputError: if it is not a picture, is damaged, has more than 8 bits per channel, or more
        than `max_pixels`.
    """
    jpeg = _read_header(data, name, max_pixels)
    if jpeg and (pixels := decode_jpeg(data, jpeg, name)) is not None:
        return pixels
    return _decode_by_pillow(data, name, max_pixels, formats)


def decode_crop(
    data: bytes,
    name: str,
    choose: Callable[[int, int], Box],
    image_size: tuple[int, int],
    max_pixels: int = MAX_PIXELS,
    to_end: bool = True,
) -> UInt8[np.ndarray, 'h w c']:
    """Decodes part of a picture and resizes it, see `crop_and_resize`.

    Args:
      data, name, max_pixels: see `decode_picture`.
      choose: (height, width) of the upright picture → the part.
      image_size: (height, width) to resize to.
      to_end: False to decode a JPEG no further down than needed, where damage goes unnoticed; the
        result is the same.

    Raises:
      InputError: see `decode_picture`.
    """
    jpeg = _read_header(data, name, max_pixels)
    decoded = None
    if jpeg is not None:
        decoded = decode_jpeg_around(data, jpeg, name, choose, image_size, to_end)
    if decoded is None:
        pixels = decode_picture(data, name, max_pixels)
        decoded = pixels, choose(*pixels.shape[:2])
    return crop_and_resize(*decoded, image_size)


def crop_and_resize(
    pixels: UInt8[np.ndarray, '_ _ c'], box: Box, image_size: tuple[int, int]
) -> UInt8[np.ndarray, 'h w c']:
    """Part of a picture, resized: bilinear, or area averaging when it shrinks to half or less."""
    top, left, height, width = box
    part = pixels[top : top + height, left : left + width]
    halves = min(height / image_size[0], width / image_size[1]) >= 2
    method = cv2.INTER_AREA if halves else cv2.INTER_LINEAR
    return cv2.resize(part, image_size[::-1], interpolation=method).reshape(*image_size, -1)


def _read_header(data: bytes, name: str, max_pixels: int) -> Jpeg | None:
    if jpeg := read_header(data):
        check_size(data, jpeg.height, jpeg.width, name, max_pixels)
    elif size := _webp_size(data):
        check_size(data, *size, name, max_pixels)
    return jpeg


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """(height, width) that a WebP claims: opening one takes the memory for them."""
    if not (data.startswith(b'RIFF') and data[8:12] == b'WEBP' and len(data) >= 30):
        return None
    if data[12:16] == b'VP8X':
        width, height = (int.from_bytes(data[at : at + 3], 'little') + 1 for at in (24, 27))
    elif data[12:16] == b'VP8L':
        sides = int.from_bytes(data[21:25], 'little')
        width, height = (sides & 0x3FFF) + 1, (sides >> 14 & 0x3FFF) + 1
    else:
        width, height = (int.from_bytes(data[at : at + 2], 'little') & 0x3FFF for at in (26, 28))
    return height, width


def check_size(data: bytes, height: int, width: int, name: str, max_pixels: int) -> None:
    """Raises InputError if a picture takes too much memory or time to decode."""
    weight, reason = 1, ''
    if (num_scans := count_scans(data)) >= 2 * USUAL_SCANS:
        weight, reason = num_scans // USUAL_SCANS, f' in {num_scans} scans'
    elif data.startswith(JPEG2000):
        weight, reason = 2, ' in JPEG 2000, which counts twice'
    if height * width * weight > max_pixels:
        raise InputError(
            f'{name}: expected a picture of at most {max_pixels:,} pixels, got {width} x '
            f'{height}{reason}; make it smaller, or allow more by max_pixels'
        )


def _decode_by_pillow(
    data: bytes, name: str, max_pixels: int, formats: tuple[str, ...]
) -> np.ndarray:
    if Image.MAX_IMAGE_PIXELS is not None:  # Pillow's own limit, of the whole process
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_pixels)
    try:
        with Image.open(io.BytesIO(data), formats=formats) as picture:
            check_size(data, picture.height, picture.width, name, max_pixels)
            stored = ' '.join(str(tile.args) for tile in picture.tile)  # such as 'RGB;16B'
            if picture.mode.startswith(('I', 'F')) or ';16' in stored:
                raise ValueError(f'it has more than 8 bits per channel, mode {picture.mode}')
            picture.load()  # turns a TIFF upright, and no other format
            orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
            mode = 'L' if picture.mode in ('1', 'L', 'LA') else 'RGB'
            # Through RGBA, because Pillow warns about palettes with a transparent colour.
            opaque = picture.convert('RGBA') if picture.mode == 'P' else picture
            pixels = np.asarray(opaque.convert(mode))
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(f'{name}: expected a picture, but its format is unknown') from None
    except Exception as error:  # Pillow's parsers raise all sorts of errors on damaged files
        raise InputError(f'{name}: expected a picture, but it cannot be read: {error}') from None
    return UPRIGHT.get(orientation, np.asarray)(pixels.reshape(*pixels.shape[:2], -1))
