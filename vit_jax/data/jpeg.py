"""JPEG by libjpeg-turbo, decoded no further down than a crop needs.

A JPEG is damaged if libjpeg warns of it. simplejpeg raises on such warnings, Pillow and OpenCV
ignore them. A JPEG that it cannot take at all is left to Pillow, see `vit_jax.data.picture`.
"""

import contextlib
import io
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL import ExifTags, Image

from vit_jax.errors import InputError

XMP = b'http://ns.adobe.com/xap/1.0/\0'

Box = tuple[int, int, int, int]  # top, left, height, width

# How to turn stored pixels upright, by EXIF orientation.
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x[::-1].swapaxes(0, 1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x[:, ::-1].swapaxes(0, 1),
}


class Jpeg(NamedTuple):
    """The header of a JPEG that simplejpeg can decode.

    Args:
      height, width: as stored, before it is turned upright.
      colours: 'RGB' or 'GRAY'.
      orientation: EXIF's, 1 to 8.
    """

    height: int
    width: int
    colours: str
    orientation: int


def read_header(data: bytes) -> Jpeg | None:
    """Reads the header of a JPEG; None if it is not one that simplejpeg can decode."""
    if not data.startswith(b'\xff\xd8'):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
    except Exception:  # such as KeyError for 4:4:1
        return None
    if colours not in ('YCbCr', 'RGB', 'Gray'):
        return None
    orientation = 1
    # Only then, because Pillow's parser takes a tenth of the time of decoding.
    if any(data.startswith((b'Exif\0\0', XMP), at + 4) for at, _ in _segments(data)):
        with contextlib.suppress(Exception), Image.open(io.BytesIO(data)) as picture:
            orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    return Jpeg(height, width, 'GRAY' if colours == 'Gray' else 'RGB', orientation)


def decode_jpeg(data: bytes, jpeg: Jpeg, name: str) -> UInt8[np.ndarray, 'h w c'] | None:
    """The whole picture, upright; None if simplejpeg cannot take it.

    Raises:
      InputError: if it is damaged.
    """
    pixels = _decode_strictly(data, jpeg, name)
    return None if pixels is None else UPRIGHT.get(jpeg.orientation, np.asarray)(pixels)


def _decode_strictly(data: bytes, jpeg: Jpeg, name: str, **options: int) -> np.ndarray | None:
    try:
        return simplejpeg.decode_jpeg(data, jpeg.colours, **options)
    except Exception as error:
        if _decode(data, jpeg, strict=False, **options) is None:
            return None
        raise InputError(f'{name}: expected a picture, but it is damaged: {error}') from None


def _decode(data: bytes, jpeg: Jpeg, **options: int) -> np.ndarray | None:
    try:
        return simplejpeg.decode_jpeg(data, jpeg.colours, **options)
    except Exception:
        return None


def decode_jpeg_around(
    data: bytes,
    jpeg: Jpeg,
    name: str,
    choose: Callable[[int, int], Box],
    image_size: tuple[int, int],
    to_end: bool,
) -> tuple[UInt8[np.ndarray, 'h w c'], Box] | None:
    """Pixels that contain a chosen part, upright, and where it lies in them.

    A part that is at least twice as large as needed is decoded at a lower resolution.

    Args:
      choose: (height, width) of the upright picture → the part.
      image_size: (height, width) that the part will be resized to.
      to_end: whether to decode what is below the part too, which finds damage there. Otherwise 1.2
        times as many pictures are decoded per second. The part is the same either way.

    Returns:
      None if simplejpeg cannot take it.

    Raises:
      InputError: if what is decoded is damaged.
    """
    turned = jpeg.orientation in (5, 6, 7, 8)
    box = choose(jpeg.width, jpeg.height) if turned else choose(jpeg.height, jpeg.width)
    top, left, height, width = box
    rows = jpeg.height
    if not to_end and jpeg.orientation == 1 and (at := _height_offset(data)) is not None:
        # One row more, because halved chroma is interpolated with the next row.
        rows = min(top + height + 1, rows)
        data = b''.join((data[:at], rows.to_bytes(2, 'big'), data[at + 2 :]))
    shrink = min(height / image_size[0], width / image_size[1])
    scale = math.ceil(8 / shrink) / 8 if shrink >= 2 else 1.0  # libjpeg scales by eighths
    options = {
        'min_height': math.ceil(rows * scale),
        'min_width': math.ceil(jpeg.width * scale),
        'min_factor': 2,
    }
    if rows == jpeg.height:
        pixels = _decode_strictly(data, jpeg, name, **options)
    else:  # the data goes on, of which libjpeg warns
        pixels = _decode(data, jpeg, strict=False, **options)
    if pixels is None:
        return None
    pixels = UPRIGHT.get(jpeg.orientation, np.asarray)(pixels)
    top, height = _scaled(top, height, scale, pixels.shape[0])
    left, width = _scaled(left, width, scale, pixels.shape[1])
    return pixels, (top, left, height, width)


def _scaled(start: int, length: int, scale: float, limit: int) -> tuple[int, int]:
    """Start and length of part of a side at another resolution; at least one pixel."""
    first = min(round(scale * start), limit - 1)
    return first, max(min(round(scale * (start + length)), limit) - first, 1)


def count_scans(data: bytes) -> int:
    """How often the pixels of a JPEG are passed over, or more; 1 for any other file."""
    if not data.startswith(b'\xff\xd8'):
        return 1
    num_components = None
    for at, marker in _segments(data):
        if marker in (0xC0, 0xC1):  # sequential
            num_components = data[at + 9 : at + 10]
        if marker == 0xDA and data[at + 4 : at + 5] == num_components:
            return 1  # a scan of all components, after which libjpeg expects the end
    # No marker occurs within scan data, and one in a thumbnail does no harm here.
    return data.count(b'\xff\xda')


def _height_offset(data: bytes) -> int | None:
    """Offset of the height in a sequential JPEG's header, which says how far to decode.

    None for a progressive JPEG, which has to be read to its end, and for one whose end is missing,
    which the decoder is to find out.
    """
    if b'\xff\xd9' not in data[-64:]:
        return None
    return next((at + 5 for at, marker in _segments(data) if marker in (0xC0, 0xC1)), None)


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Offsets and markers of a JPEG's segments, up to the first start of a scan."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        if data[at + 1] == 0xFF:  # a fill byte
            at += 1
            continue
        yield at, data[at + 1]
        if data[at + 1] == 0xDA:
            return
        at += 2 + int.from_bytes(data[at + 2 : at + 4], 'big')
