"""Runs in a bucket of Google Cloud Storage, served by an emulator on this machine."""

import signal
import socket

import jax
import numpy as np
import processes
import pytest
from etils import epath
from PIL import Image

import vit_jax
from vit_jax.__main__ import main
from vit_jax.errors import InputError
from vit_jax.run.metrics import read_metrics
from vit_jax.run.report import Reporter
from vit_jax.run.signals import Interrupted
from vit_jax.run.storage import open_path
from vit_jax.train.trainer import train

# The emulator lacks a header of the real service that TensorStore reads.
EMULATOR = """
import sys, time
from http import HTTPStatus
from gcp_storage_emulator.handlers import objects

def download(request, response, storage, *rest, **options):
    without_header(request, response, storage, *rest, **options)
    if response.status != HTTPStatus.NOT_FOUND:
        name = request.params['bucket_name'], request.params['object_id']
        response['x-goog-generation'] = storage.get_file_obj(*name)['generation']

without_header, objects.download = objects.download, download
from gcp_storage_emulator.server import create_server
create_server('localhost', int(sys.argv[1]), in_memory=True, default_bucket='bucket').start()
print('ready', flush=True)
while True:
    time.sleep(60)
"""


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = free.getsockname()[1]
    for variable in ('STORAGE_EMULATOR_HOST', 'TENSORSTORE_GCS_HTTP_URL'):
        monkeypatch.setenv(variable, f'http://localhost:{port}')
    monkeypatch.setenv('GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT', 'false')  # takes credentials
    with (tmp_path / 'emulator').open('w') as log:
        process = processes.start('-c', EMULATOR, port, stderr=log)
        assert process.stdout.readline() == 'ready\n', (tmp_path / 'emulator').read_text()
        yield 'gs://bucket'
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_run_in_a_bucket_resumes_and_ends_like_a_local_one(
    digits_config, bucket, tmp_path, monkeypatch, capsys
):
    def interrupt(self, step, metrics):
        report(self, step, metrics)
        if step == 4:
            signal.raise_signal(signal.SIGINT)

    report = Reporter.train
    run = f'{bucket}/digits/run'
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Reporter, 'train', interrupt)
        train(digits_config, run)
    half = epath.Path(run) / 'checkpoints' / '5' / 'params' / 'half'
    half.write_text('of a checkpoint, whose process was killed')
    train(digits_config, run)
    assert not half.exists()
    train(digits_config, str(tmp_path / 'local'))
    lines = [read_metrics(path / 'metrics.jsonl') for path in (epath.Path(run), tmp_path / 'local')]
    assert [x['loss'] for x in lines[0]] == [x['loss'] for x in lines[1]]
    both = [vit_jax.load_weights(path)[1] for path in (run, tmp_path / 'local')]
    jax.tree.map(np.testing.assert_array_equal, *both)
    assert {path.name for path in (epath.Path(run) / 'checkpoints').iterdir()} == {'4', '6'}
    assert any('tfevents' in path.name for path in (epath.Path(run) / 'tensorboard').iterdir())
    picture, converted = str(tmp_path / 'picture.png'), str(tmp_path / 'converted.safetensors')
    Image.linear_gradient('L').save(picture)
    capsys.readouterr()
    for command, options in [
        ('predict', [picture, '--step', 'best']),
        ('evaluate', []),
        ('summary', []),
        ('convert', [converted, '--to', 'seed']),
    ]:
        assert main([command, run, *options]) == 0
        printed = capsys.readouterr().out
        assert main([command, str(tmp_path / 'local'), *options]) == 0
        assert printed and printed == capsys.readouterr().out


def test_unreachable_paths_raise(monkeypatch):
    async def at_once(seconds):
        """Between retries."""

    monkeypatch.setenv('STORAGE_EMULATOR_HOST', 'http://localhost:9')  # nobody listens
    monkeypatch.setattr('gcsfs.retry.asyncio.sleep', at_once)
    with pytest.raises(InputError, match='gs://elsewhere/run: cannot be reached: '):
        open_path('gs://elsewhere/run')
    with pytest.raises(InputError, match='expected a path or gs://BUCKET/FOLDER, got s3://'):
        open_path('s3://bucket/run')
