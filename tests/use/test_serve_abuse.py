"""What clients do that they should not."""

import asyncio
import os
import socket
import sys
import tempfile

import httpx
import numpy as np
import pytest
from pictures import encode
from PIL import Image
from serving import (
    Running,
    as_form,
    photographs,
    small_predictor,
    wait_until,
)

from benchmarks.malformed import Upload as Sent
from benchmarks.malformed import form, request, send_malformed, send_upload
from vit_jax.data.picture import decode_picture
from vit_jax.errors import InputError
from vit_jax.use.serving.uploads import Limits


@pytest.fixture(scope='module')
def running():
    with Running(small_predictor()) as running:
        yield running


@pytest.fixture(scope='module')
def client(running):
    with httpx.Client(base_url=running.url, timeout=30) as client:
        yield client


def test_a_webp_is_refused_by_the_size_that_it_claims():
    sides = (10_921 | 16_382 << 14).to_bytes(4, 'little')
    lossless = b'VP8L' + (5).to_bytes(4, 'little') + b'\x2f' + sides + b'\0'
    corner = (10_921).to_bytes(3, 'little') + (16_382).to_bytes(3, 'little')
    extended = b'VP8X' + (10).to_bytes(4, 'little') + bytes(4) + corner
    for chunk in (lossless, extended):
        data = b'RIFF' + (4 + len(chunk)).to_bytes(4, 'little') + b'WEBP' + chunk
        data = data.ljust(34, b'\0')
        with pytest.raises(InputError, match='got 10922 x 16383'):
            decode_picture(data, 'small.webp')
    for options in ({}, {'lossless': True}, {'exif': b'Exif\0\0'}):
        data = encode(Image.new('RGB', (30, 20)), 'webp', **options)
        assert decode_picture(data, 'a.webp', 600).shape == (20, 30, 3)
        with pytest.raises(InputError, match='at most 599 pixels, got 30 x 20'):
            decode_picture(data, 'a.webp', 599)


def test_malformed_uploads_crash_nothing(running, client, capfd):
    before = peak_gib()
    ends, failures = asyncio.run(send_malformed(running.port, 208))
    assert failures == [] and sum(ends.values()) == 208
    assert len({end.rsplit(': ')[-1] for end in ends} & {'200', '422', '400', '413'}) == 4
    assert peak_gib() < before + 0.5
    assert capfd.readouterr() == ('', '')
    wait_until(lambda: running.answering.num_admitted == 0)
    assert client.post('/predict', files=as_form(photographs(1))).status_code == 200


def test_clients_that_stall_lose_their_connection(monkeypatch):
    monkeypatch.setattr('vit_jax.use.serving.server.HEAD_SECONDS', 0.3)
    content = request(form(encode(photographs(1)[0], 'png')))
    with Running(small_predictor(), Limits(read_seconds=0.5)) as running:
        for parts, end in (
            ([b'POST /pre'], 'closed'),
            ([content[:5000]], '408'),
            ([content[:50], content[50:9000], content[9000:]], '200'),
        ):
            assert asyncio.run(send_upload(running.port, Sent('', parts))) == end
        with socket.create_connection(('127.0.0.1', running.port), 5) as silent:
            assert silent.recv(1) == b''


def test_no_content_of_a_client_is_written_to_a_file(client):
    written, is_watching = [], True

    def audit(event, arguments):
        if event == 'open' and is_watching and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            written.append(arguments[0])

    sys.addaudithook(audit)
    with tempfile.SpooledTemporaryFile(max_size=10) as usual:
        usual.write(bytes(11))
    assert written  # it would be seen
    written.clear()
    noise = np.random.default_rng(0).integers(0, 255, (900, 900, 3), np.uint8)
    answer = client.post('/predict?attention=true', files=as_form([Image.fromarray(noise)]))
    is_watching = False
    assert answer.status_code == 200 and written == []


def test_other_sites_and_unknown_hosts_are_refused_and_headers_are_strict():
    files = as_form(photographs(1))
    with (
        Running(small_predictor(), hosts=frozenset({'localhost', '127.0.0.1'})) as running,
        httpx.Client(base_url=running.url) as client,
    ):
        assert client.get('/', headers={'Host': 'evil.example'}).status_code == 403
        assert client.get('/', headers={'Host': 'LOCALHOST:80'}).status_code == 200
        for site, status in (('cross-site', 403), ('same-site', 403), ('same-origin', 200)):
            headers = {'Sec-Fetch-Site': site}
            assert client.post('/predict', files=files, headers=headers).status_code == status
        for path in ('/', '/page.js', '/model', '/nothing', '/../pyproject.toml'):
            headers = client.get(path).headers
            policy = headers['content-security-policy']
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
            assert 'unsafe' not in policy and headers['x-content-type-options'] == 'nosniff'
            assert 'access-control-allow-origin' not in headers
        assert client.get('/../pyproject.toml').status_code == 404
        assert client.get('/predict').status_code == 405
        running.app.stopping = True
        answer = client.get('/healthz')
        assert answer.status_code == 503 and answer.headers['connection'] == 'close'


def peak_gib():
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
