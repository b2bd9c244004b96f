"""Malformed uploads for a server: mutated pictures and forms, wrong sizes, odd names, slow clients.

python benchmarks/serving.py --malformed 10000 sends them.
"""

import asyncio
import random
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.fuzz import encode_pictures, mutate

BOUNDARY = 'b0undary'
ANSWER_SECONDS = 30.0  # the most that an answer may take
ODD_NAMES = (
    '',
    '../../etc/passwd',
    'C:\\con.png',
    'a' * 3000,
    '\u202egnp.exe',
    '\x00\x1b[31m',
    '<script>alert(1)</script>.png',
    '猫.png',
    '"; filename="b',
    '%0d%0aSet-Cookie: a=b',
)


class Upload(NamedTuple):
    """What a client sends.

    Args:
      parts: of a request, with a pause after each but the last.
      waits: whether the client waits for an answer; otherwise it leaves after a moment.
    """

    kind: str
    parts: list[bytes]
    waits: bool = True


def form(data: bytes, name: str = 'a.png', boundary: str = BOUNDARY) -> bytes:
    """A form of one file."""
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="picture"; filename="{name}"\r\n\r\n'
    )
    return head.encode() + data + f'\r\n--{boundary}--\r\n'.encode()


def request(body: bytes, target: str = '/predict', length: int | None = None) -> bytes:
    """A POST request of a form."""
    length = len(body) if length is None else length
    return (
        f'POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n'
        f'Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n'
    ).encode() + body


def huge_pictures() -> dict[str, bytes]:
    """Small files that claim to be huge pictures."""
    header = b'IHDR' + struct.pack('>IIBBBBB', 100_000, 100_000, 8, 2, 0, 0, 0)
    png = b'\x89PNG\r\n\x1a\n' + struct.pack('>I', 13) + header
    png += struct.pack('>I', zlib.crc32(header))
    pixels = zlib.compress(bytes(10**6))
    png += struct.pack('>I', len(pixels)) + b'IDAT' + pixels
    png += struct.pack('>I', zlib.crc32(b'IDAT' + pixels))
    sides = struct.pack('<I', 10_921 | 16_382 << 14)
    lossless = b'WEBPVP8L' + struct.pack('<I', 14) + b'\x2f' + sides + bytes(9)
    canvas = (16_383 - 1).to_bytes(3, 'little') * 2
    extended = b'WEBPVP8X' + struct.pack('<I', 10) + bytes(4) + canvas
    jpeg = bytearray(encode_pictures()['JPEG RGB '])
    at = jpeg.index(b'\xff\xc0')
    jpeg[at + 5 : at + 9] = b'\xff\xff\xff\xff'
    gif = b'GIF89a' + struct.pack('<HH', 65_535, 65_535) + b'\x80\0\0' + bytes(64)
    bmp = b'BM' + struct.pack('<IIIIiiHHIIiiII', 54, 0, 54, 40, 90_000, 90_000, 1, 24, *[0] * 6)
    riff = {
        name: b'RIFF' + struct.pack('<I', len(x)) + x
        for name, x in (('lossless WebP', lossless), ('extended WebP', extended))
    }
    return {'PNG': png, 'JPEG': bytes(jpeg), 'GIF': gif, 'BMP': bmp, **riff}


def malformed_uploads(count: int, seed: int = 0) -> Iterator[Upload]:
    """So many uploads, of all kinds in turn."""
    rng = random.Random(seed)
    pictures = list(encode_pictures().items())
    huge = list(huge_pictures().items())
    for case in range(count):
        name, data = pictures[case // 8 % len(pictures)]
        match case % 8:
            case 0 | 1:
                data = mutate(data, rng)
                yield Upload(f'mutated {name.split()[0]}', [request(form(data))])
            case 2:
                name, data = huge[case // 8 % len(huge)]
                data = data if rng.random() < 0.5 else mutate(data, rng)
                yield Upload(f'huge {name}', [request(form(data))])
            case 3:
                data = rng.randbytes(rng.choice((0, 1, 30, 5000, 300_000)))
                yield Upload('random bytes', [request(form(data))])
            case 4:
                odd = rng.choice(ODD_NAMES)
                yield Upload('odd name', [request(form(data, odd), f'/predict?top_k={case}')])
            case 5:
                yield Upload('mutated form', [request(mutate(form(data), rng))])
            case 6:
                yield _odd_request(request(form(data)), rng)
            case _:
                yield _slow(request(form(data)), rng)


def _odd_request(whole: bytes, rng: random.Random) -> Upload:
    """Wrong lengths, headers, methods and paths."""
    head, _, body = whole.partition(b'\r\n\r\n')
    match rng.randrange(8):
        case 0:
            return Upload('wrong length', [request(body, length=len(body) + 1000)], waits=False)
        case 1:
            return Upload('wrong length', [request(body, length=rng.randrange(len(body)))])
        case 2:
            return Upload('wrong length', [request(b'', length=10**12)])
        case 3:
            target = rng.choice(('/..%2f..%2fetc/passwd', '/predict?top_k=-1', '//', '/%00', '/*'))
            return Upload('wrong path', [request(body, target)])
        case 4:
            chunked = (
                head.replace(b'Content-Length', b'Transfer-Encoding: chunked\r\nX') + b'\r\n\r\n'
            )
            return Upload(
                'wrong chunks', [chunked + rng.choice((b'zz\r\n', b'5\r\nab', b'0\r\n\r\n'))], False
            )
        case 5:
            return Upload(
                'wrong head', [head.replace(b'boundary=', b'boundary="') + b'\r\n\r\n' + body]
            )
        case 6:
            return Upload('long head', [head + b'\r\nX: ' + b'x' * 200_000 + b'\r\n\r\n' + body])
        case _:
            return Upload('no HTTP', [mutate(head, rng) + b'\r\n\r\n' + body], waits=False)


def _slow(whole: bytes, rng: random.Random) -> Upload:
    """A client that sends in pieces, and may leave before the end."""
    cuts = sorted(rng.sample(range(1, len(whole)), 3))
    parts = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    if rng.random() < 0.5:
        return Upload('leaves early', parts[:-1], waits=False)
    return Upload('slow', parts)


async def send_upload(port: int, upload: Upload, pause: float = 0.05) -> str:
    """Sends it; returns the status of the answer, 'left', 'closed' or 'no answer'."""
    reader, writer = await asyncio.open_connection('127.0.0.1', port)
    try:
        for part in upload.parts:
            writer.write(part)
            await writer.drain()
            if part is not upload.parts[-1] or not upload.waits:
                await asyncio.sleep(pause)
        if not upload.waits:
            return 'left'
        line = await asyncio.wait_for(reader.readline(), ANSWER_SECONDS)
        return line.split()[1].decode() if line else 'closed'
    except TimeoutError:
        return 'no answer'
    except ConnectionError:  # while it was still sending
        return 'closed'
    finally:
        writer.close()


async def send_malformed(
    port: int, count: int, num_clients: int = 16, seed: int = 0
) -> tuple[Counter[str], list[str]]:
    """Sends uploads from several clients; returns how they ended, and what was wrong."""
    uploads = malformed_uploads(count, seed)
    ends: Counter[str] = Counter()
    failures: list[str] = []

    async def client() -> None:
        for upload in uploads:
            end = await send_upload(port, upload)
            ends[f'{upload.kind}: {end}'] += 1
            if end == 'no answer' or (end.startswith('5') and end != '503'):
                failures.append(f'{upload.kind}: {end}')

    await asyncio.gather(*(client() for _ in range(num_clients)))
    return ends, failures
