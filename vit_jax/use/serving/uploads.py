"""Pictures that clients send: read into memory within limits, and decoded at the size needed.

No content of a client touches the disk: forms are parsed here, since the usual parsers put large
files into temporary ones.
"""

import contextlib
import dataclasses
import logging
from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.exceptions import HTTPException
from starlette.requests import Request

from vit_jax.data.jpeg import Box, decode_jpeg_around, read_header
from vit_jax.data.picture import check_size, decode_picture
from vit_jax.errors import InputError
from vit_jax.use.serving.batching import Busy

FORMATS = ('JPEG', 'PNG', 'WEBP', 'GIF', 'BMP', 'AVIF')  # that browsers show
MAX_NAME = 200  # characters of a file name that an answer repeats
CLOSE = {'Connection': 'close'}  # after an answer to a request that was not read to its end

logging.getLogger('python_multipart').setLevel(logging.ERROR)  # it warns of damaged forms


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a server takes from its clients.

    Args:
      pictures: in a request.
      picture_bytes, request_bytes: of one file and of all files in a request.
      bytes_in_memory: of all requests at a time.
      jpeg_pixels: of a JPEG, which is decoded at a lower resolution above `other_pixels`.
      other_pixels: of a picture in another format.
      read_seconds: until a request has arrived.
      answer_seconds: from then until it is answered.
      waiting: pictures of all requests, at a time.
      waiting_seconds: that the model may need for them.
    """

    pictures: int = 32
    picture_bytes: int = 10_000_000
    request_bytes: int = 32_000_000
    bytes_in_memory: int = 256_000_000
    jpeg_pixels: int = 50_000_000
    other_pixels: int = 16_777_216
    read_seconds: float = 30.0
    answer_seconds: float = 60.0
    waiting: int = 512
    waiting_seconds: float = 10.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if (value := getattr(self, field.name)) <= 0:
                raise InputError(f'{field.name}: expected more than 0, got {value}')


@dataclasses.dataclass
class Upload:
    """A file of a client."""

    name: str
    data: bytearray = dataclasses.field(default_factory=bytearray)


class Memory:
    """Bytes that requests hold, all together."""

    def __init__(self, limit: int) -> None:
        self._limit, self._taken = limit, 0

    @contextlib.contextmanager
    def take(self, num_bytes: int) -> Iterator[None]:
        """Room for the body of a request.

        Raises:
          Busy: if there is none.
        """
        if self._taken and self._taken + num_bytes > self._limit:
            raise Busy(1.0)
        self._taken += num_bytes
        try:
            yield
        finally:
            self._taken -= num_bytes


def content_length(request: Request, limits: Limits) -> int:
    """Bytes of a request's body, or the most that it may have.

    Raises:
      HTTPException: 413 if it is too large.
    """
    length = request.headers.get('content-length', '')
    if not length.isdecimal():
        return limits.request_bytes
    if int(length) > limits.request_bytes:
        raise HTTPException(413, _too_large('a request', limits.request_bytes), CLOSE)
    return int(length)


async def discard(request: Request, limits: Limits) -> None:
    """Reads a body and keeps nothing of it, so that its client comes to read the answer."""
    num_bytes = 0
    async for chunk in request.stream():
        num_bytes += len(chunk)
        if num_bytes > 4 * limits.request_bytes:
            return


async def read_uploads(request: Request, limits: Limits) -> list[Upload]:
    """The files of a multipart form, in order.

    Raises:
      HTTPException: 413 if something is too large, 415 if it is no such form, 400 if it is damaged
        or has no file.
    """
    kind, options = parse_options_header(request.headers.get('content-type', ''))
    boundary = options.get(b'boundary', b'')
    if kind != b'multipart/form-data' or not 0 < len(boundary) <= 200:
        raise HTTPException(
            415, "expected multipart/form-data with files, as of curl -F 'picture=@cat.jpg'", CLOSE
        )
    form = _Form(boundary, limits)
    num_bytes = 0
    try:
        async for chunk in request.stream():
            num_bytes += len(chunk)
            if num_bytes > limits.request_bytes:
                raise HTTPException(413, _too_large('a request', limits.request_bytes), CLOSE)
            form.parser.write(chunk)
    except FormParserError as error:
        raise HTTPException(400, f'expected a multipart form, got: {error}', CLOSE) from None
    if not form.is_whole:
        raise HTTPException(400, 'expected a multipart form, but its end is missing')
    if not form.uploads:
        raise HTTPException(400, "expected at least one file, as of curl -F 'picture=@cat.jpg'")
    return form.uploads


class _Form:
    """Collects the files of a form; values of other fields are dropped."""

    def __init__(self, boundary: bytes, limits: Limits) -> None:
        self.uploads: list[Upload] = []
        self.is_whole = False
        self._limits = limits
        self._field, self._value = bytearray(), bytearray()
        self._disposition = b''
        self._upload: Upload | None = None
        callbacks = {
            name: getattr(self, f'_{name}')
            for name in (
                'on_part_begin',
                'on_header_field',
                'on_header_value',
                'on_header_end',
                'on_headers_finished',
                'on_part_data',
                'on_end',
            )
        }
        self.parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]

    def _on_part_begin(self) -> None:
        self._disposition, self._upload = b'', None

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._field.lower() == b'content-disposition':
            self._disposition = bytes(self._value)
        self._field.clear()
        self._value.clear()

    def _on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b'filename' not in options:
            return
        if len(self.uploads) == self._limits.pictures:
            text = f'expected at most {self._limits.pictures} pictures a request'
            raise HTTPException(413, text, CLOSE)
        self._upload = Upload(_printable(options[b'filename']))
        self.uploads.append(self._upload)

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._upload is None:
            return
        self._upload.data += data[start:end]
        if len(self._upload.data) > self._limits.picture_bytes:
            text = _too_large(self._upload.name, self._limits.picture_bytes)
            raise HTTPException(413, text, CLOSE)

    def _on_end(self) -> None:
        self.is_whole = True


def _printable(name: bytes) -> str:
    """A file's name for answers: one short line."""
    text = name.decode(errors='replace')
    return ''.join(c if c.isprintable() else '\N{REPLACEMENT CHARACTER}' for c in text)[:MAX_NAME]


def _too_large(what: str, num_bytes: int) -> str:
    return f'{what}: expected at most {num_bytes / 1e6:g} MB; make the picture smaller'


def decode_upload(
    upload: Upload, image_size: tuple[int, int], limits: Limits
) -> UInt8[np.ndarray, 'h w c']:
    """Decodes a picture; a large JPEG at a resolution that is at least twice the model's.

    Args:
      image_size: (height, width) of the model's images.

    Raises:
      InputError: if it is not a picture, is damaged, or has too many pixels.
    """
    data, name = bytes(upload.data), upload.name or 'the picture'

    def whole(height: int, width: int) -> Box:
        return 0, 0, height, width

    jpeg = read_header(data)
    try:
        if jpeg is not None and jpeg.height * jpeg.width > limits.other_pixels:
            check_size(data, jpeg.height, jpeg.width, name, limits.jpeg_pixels)
            twice = 2 * image_size[0], 2 * image_size[1]
            if decoded := decode_jpeg_around(data, jpeg, name, whole, twice, to_end=True):
                return decoded[0]
        return decode_picture(data, name, limits.other_pixels, FORMATS)
    except InputError as error:  # nobody who sends a picture can pass an option
        raise InputError(str(error).replace(', or allow more by max_pixels', '')) from None
