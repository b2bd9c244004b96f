"""Picture files as pixels: any format Pillow reads, JPEG by libjpeg-turbo and only what is needed.

JPEG is the common case and the slow one. It is decoded by simplejpeg, which raises at what Pillow
and OpenCV pass over in silence; whatever it does not take is Pillow's, and so is the last word on
what is damaged.
"""

import contextlib
import io
import math
import os
import stat
from collections.abc import Callable, Iterator
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import ExifTags, Image, UnidentifiedImageError

from vit_jax.errors import InputError

MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # where Pillow speaks of a decompression bomb

FORMATS = ('BMP', 'GIF', 'JPEG', 'JPEG2000', 'PNG', 'PPM', 'TIFF', 'WEBP')  # none runs programs

Box = tuple[int, int, int, int]  # top, left, height, width

# How stored pixels come upright, by EXIF's orientation.
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x[::-1].swapaxes(0, 1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x[:, ::-1].swapaxes(0, 1),
}

cv2.setNumThreads(1)  # the data pipeline has its own threads


def read_picture(path: str | os.PathLike[str]) -> UInt8[np.ndarray, 'h w c']:
    """Reads and decodes a picture file, see `decode_picture`.

    Raises:
      InputError: where there is no such file, too.
    """
    return decode_picture(read_bytes(path), os.fspath(path))


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The content of a file.

    Raises:
      InputError: where it cannot be read.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would never end
            raise InputError(f'{path}: expected a file')
        with open(path, 'rb') as file:
            return file.read()
    except FileNotFoundError:
        raise InputError(f'{path}: no such file') from None
    except OSError as error:
        raise InputError(
            f'{path}: expected a file, but it cannot be read: {error.strerror}'
        ) from None


def decode_picture(data: bytes, name: str) -> UInt8[np.ndarray, 'h w c']:
    """Decodes a picture, upright as its EXIF orientation says.

    Args:
      data: content of a file.
      name: of the picture, for errors.

    Returns:
      Grey (c = 1) or RGB (c = 3). Palettes and CMYK become RGB, transparency is dropped.

    Raises:
      InputError: where it is no picture, damaged, of more than 8 bits a channel, or so large that
        it must be an attack (179 megapixels, Pillow's bound).
    """
    if (jpeg := _read_header(data, name)) is not None:
        try:
            pixels = simplejpeg.decode_jpeg(data, jpeg.colours)
            return UPRIGHT.get(jpeg.orientation, np.asarray)(pixels)
        except ValueError:
            pass
    return _decode_by_pillow(data, name)


def decode_crop(
    data: bytes,
    name: str,
    choose: Callable[[int, int], Box],
    image_size: tuple[int, int],
) -> UInt8[np.ndarray, 'h w c']:
    """Decodes a part of a picture and resizes it, see `resize_part`.

    Of a JPEG as little is decoded as libjpeg can be brought to: only the rows down to the lower
    edge of the part (1.2 times as many pictures a second), and where the part is at least twice as
    large as needed, no more than half of the resolution.

    Args:
      data, name: see `decode_picture`.
      choose: (height, width) of the upright picture → the part.
      image_size: (height, width) to resize to.

    Raises:
      InputError: as `decode_picture`.
    """
    jpeg = _read_header(data, name)
    decoded = None if jpeg is None else _decode_jpeg_crop(data, jpeg, choose, image_size)
    if decoded is None:
        pixels = decode_picture(data, name)
        decoded = pixels, choose(*pixels.shape[:2])
    return resize_part(*decoded, image_size)


def resize_part(
    pixels: UInt8[np.ndarray, '_ _ c'], box: Box, image_size: tuple[int, int]
) -> UInt8[np.ndarray, 'h w c']:
    """A part of a picture, resized bilinearly, or by area to a half or less."""
    top, left, height, width = box
    part = pixels[top : top + height, left : left + width]
    halves = min(height / image_size[0], width / image_size[1]) >= 2
    method = cv2.INTER_AREA if halves else cv2.INTER_LINEAR
    return cv2.resize(part, image_size[::-1], interpolation=method).reshape(*image_size, -1)


class _Jpeg(NamedTuple):
    """What a JPEG's header says, of one that simplejpeg can take."""

    height: int
    width: int
    colours: str  # 'RGB' or 'GRAY'
    orientation: int


def _read_header(data: bytes, name: str) -> _Jpeg | None:
    if not data.startswith(b'\xff\xd8'):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    _check_size(height, width, name)
    if colours not in ('YCbCr', 'RGB', 'Gray'):
        return None
    orientation = 1
    # Only then, since Pillow's parser takes a tenth of the time of decoding.
    if any(data.startswith(b'Exif\0\0', at + 4) for at, _ in _segments(data)):
        with contextlib.suppress(Exception), Image.open(io.BytesIO(data)) as picture:
            orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    return _Jpeg(height, width, 'GRAY' if colours == 'Gray' else 'RGB', orientation)


def _decode_jpeg_crop(
    data: bytes, jpeg: _Jpeg, choose: Callable[[int, int], Box], image_size: tuple[int, int]
) -> tuple[np.ndarray, Box] | None:
    """Pixels that hold the chosen part, and where in them it is; None where that cannot be had."""
    turned = jpeg.orientation in (5, 6, 7, 8)
    box = choose(jpeg.width, jpeg.height) if turned else choose(jpeg.height, jpeg.width)
    top, left, height, width = box
    rows = jpeg.height
    if jpeg.orientation == 1 and (at := _height_offset(data)) is not None:
        rows = top + height
        data = b''.join((data[:at], rows.to_bytes(2, 'big'), data[at + 2 :]))
    factor = min(height / image_size[0], width / image_size[1])
    shrink = factor if factor >= 2 else 1
    try:
        pixels = simplejpeg.decode_jpeg(
            data,
            jpeg.colours,
            min_height=math.ceil(rows / shrink),
            min_width=math.ceil(jpeg.width / shrink),
            min_factor=2,
            strict=rows == jpeg.height,  # else it would say that there is more
        )
    except ValueError:
        return None
    scales = pixels.shape[0] / rows, pixels.shape[1] / jpeg.width
    pixels = UPRIGHT.get(jpeg.orientation, np.asarray)(pixels)
    top, height = _scaled(top, height, scales[turned], pixels.shape[0])
    left, width = _scaled(left, width, scales[not turned], pixels.shape[1])
    return pixels, (top, left, height, width)


def _scaled(start: int, length: int, scale: float, limit: int) -> tuple[int, int]:
    """Where a part of a side is at another resolution; at least one pixel."""
    first = min(round(scale * start), limit - 1)
    return first, max(min(round(scale * (start + length)), limit) - first, 1)


def _height_offset(data: bytes) -> int | None:
    """Where a sequential JPEG's header has its height, which tells a decoder how far to read.

    None for a progressive one, which has to be read to its end, and for one that lacks its end,
    which is to be found out.
    """
    if b'\xff\xd9' not in data[-64:]:
        return None
    return next((at + 5 for at, marker in _segments(data) if marker in (0xC0, 0xC1)), None)


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Places and markers of a JPEG's segments, up to the picture itself."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        yield at, data[at + 1]
        at += 2 + int.from_bytes(data[at + 2 : at + 4], 'big')


def _decode_by_pillow(data: bytes, name: str) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            if picture.mode.startswith(('I', 'F')):
                raise ValueError(f'it has more than 8 bits a channel, mode {picture.mode}')
            orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
            mode = 'L' if picture.mode in ('1', 'L', 'LA') else 'RGB'
            # By way of RGBA, or Pillow warns of palettes with a transparent colour.
            opaque = picture.convert('RGBA') if picture.mode == 'P' else picture
            pixels = np.asarray(opaque.convert(mode))
    except UnidentifiedImageError:
        raise InputError(f'{name}: expected a picture, but it is in no known format') from None
    except Exception as error:  # Pillow's parsers raise all sorts of things at damaged files
        raise InputError(f'{name}: expected a picture, but it cannot be read: {error}') from None
    return UPRIGHT.get(orientation, np.asarray)(pixels.reshape(*pixels.shape[:2], -1))


def _check_size(height: int, width: int, name: str) -> None:
    if height * width > MAX_PIXELS:
        raise InputError(
            f'{name}: expected a picture of at most {MAX_PIXELS:,} pixels, got {width} x {height}'
        )
