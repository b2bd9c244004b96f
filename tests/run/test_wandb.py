"""Weights & Biases, in its offline mode."""

import json
import struct

import processes
import pytest
from wandb.proto.wandb_internal_pb2 import Record

from vit_jax.errors import InputError
from vit_jax.run.metrics import read_metrics
from vit_jax.train.checks import check_config
from vit_jax.train.trainer import train


def read_records(path):
    """The records of an offline run's file, which is a LevelDB log after a header of 7 bytes.

    Source: https://github.com/google/leveldb/blob/main/doc/log_format.md.
    """
    content, place, record = path.read_bytes(), 7, b''
    while place < len(content):
        if (left := 32768 - place % 32768) < 7:  # too little for the head of a piece
            place += left
            continue
        _, length, kind = struct.unpack_from('<IHB', content, place)
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # the whole, or the last piece
            yield Record.FromString(record)
            record = b''


def read_history(folder):
    """The metrics in an offline run: step → name → value."""
    (path,) = folder.glob('offline-run-*/*.wandb')
    history = {}
    for record in read_records(path):
        items = record.history.item
        values = {'/'.join(x.nested_key) or x.key: json.loads(x.value_json) for x in items}
        history.setdefault(values.get('_step'), {}).update(values)
    return history


def test_the_metrics_are_logged_under_the_name_of_the_run(digits_config, tmp_path, monkeypatch):
    monkeypatch.setenv('WANDB_MODE', 'offline')
    monkeypatch.setenv('WANDB_SILENT', 'true')
    digits_config.wandb_project = 'digits'
    train(digits_config, str(tmp_path))
    name = json.loads((tmp_path / 'description.json').read_text())['run']
    assert [path.name.endswith(name) for path in (tmp_path / 'wandb').glob('offline-*')] == [True]
    history = read_history(tmp_path / 'wandb')
    lines = read_metrics(tmp_path / 'metrics.jsonl')
    assert {line['split'] for line in lines} == {'train', 'test'}
    for line in lines:
        for key in line.keys() - {'step', 'split'}:
            assert history[line['step']][f'{line["split"]}/{key}'] == line[key]


def test_a_missing_login_or_package_is_named(digits_config, tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    start = "WandbRun('digits', None, epath.Path('.'), {})"
    program = f'from etils import epath; from vit_jax.run.wandb_run import WandbRun; {start}'
    _, errors = processes.run('-c', program, cwd=tmp_path, status=1)
    assert 'InputError: wandb_project: cannot start a run: No API key' in errors
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    digits_config.wandb_project = 'digits'
    with pytest.raises(InputError, match='pip install wandb'):
        check_config(digits_config)
