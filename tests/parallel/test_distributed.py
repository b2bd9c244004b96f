"""Several processes as one run, through train.py itself: the same end, and they end together."""

import json
import re
import signal
import socket
import time

import jax
import numpy as np
import processes
import pytest

import vit_jax
from vit_jax.errors import InputError
from vit_jax.parallel import distributed
from vit_jax.train.config import load_config

STEPS = 12
HEARTBEAT = 6  # seconds
OPTIONS = {
    'batch_size': 16,
    'num_steps': STEPS,
    'checkpoint_every_steps': 4,
    'eval_every_steps': 6,
    'log_every_steps': 1,
    'data.train_split': 'train[:100]',
    'data.test_split': 'test[:50]',
    'model.dim': 32,
    'model.dim_head': 8,
    'model.depth': 2,
    'model.mlp_dim': 64,
    'model.dropout': 0.1,
    'augment.mixup_alpha': 0.2,
    'optim.warmup_steps': 2,
    'distributed.heartbeat_seconds': HEARTBEAT,
}
# A run that is stuck after its third step, but alive.
STUCK = """
import sys, time
from vit_jax.run.report import Reporter
take = Reporter.train
def train(self, step, metrics):
    take(self, step, metrics)
    time.sleep(1000 * (step == 3))
Reporter.train = train
from vit_jax.__main__ import run_and_exit
run_and_exit('train.py', 'train')
"""


def start(workdir, data_dir, number, others=('train.py',), **options):
    """Starts the processes of a run, eight devices in all; `others` than the first run that."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    options = OPTIONS | options | {'data.dir': data_dir, 'distributed.num_processes': number}
    options['distributed.coordinator_address'] = f'127.0.0.1:{port}'
    arguments = [f'--config.{name}={value}' for name, value in options.items()]
    return [
        processes.start(
            *(others if i else ['train.py']),
            '--config=configs/digits.py',
            f'--workdir={workdir}',
            *arguments,
            f'--config.distributed.process_id={i}',
            devices=8 // number,
        )
        for i in range(number)
    ]


def finish(started, status=0):
    """What each process wrote to stderr, once all have ended."""
    try:
        ends = [process.communicate(timeout=150) for process in started]
    finally:
        for process in started:
            process.kill()
    codes = [process.returncode for process in started]
    assert codes == [status] * len(started), ends
    return [errors for _, errors in ends]


def wait_for_checkpoint(workdir, step):
    until = time.monotonic() + 200
    while not (workdir / 'checkpoints' / str(step)).exists():
        assert time.monotonic() < until
        time.sleep(0.05)


def metrics(workdir):
    lines = (workdir / 'metrics.jsonl').read_text().splitlines()
    return [(line['step'], line['split'], line['loss']) for line in map(json.loads, lines)]


def assert_same(workdir, expected):
    """Parameters and metrics."""
    parameters = [vit_jax.load_weights(str(path))[1] for path in (workdir, expected)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *parameters)
    for (*place, loss), (*expected_place, expected_loss) in zip(
        metrics(workdir), metrics(expected), strict=True
    ):
        assert place == expected_place
        assert loss == pytest.approx(expected_loss, rel=1e-4)


def train_here(workdir, data_dir):
    """The same run, in this process, with its eight devices."""
    vit_jax.train(load_config('digits', OPTIONS | {'data.dir': data_dir}), str(workdir))


@pytest.fixture(scope='module')
def expected(data_dir, tmp_path_factory):
    workdir = tmp_path_factory.mktemp('one') / 'run'
    train_here(workdir, data_dir)
    return workdir


def test_two_processes_train_as_one(data_dir, expected, tmp_path):
    mesh = {'parallel.data': 2, 'parallel.fsdp': 2, 'parallel.tensor': 2}
    assert finish(start(tmp_path / 'run', data_dir, 2, **mesh)) == ['', '']
    assert_same(tmp_path / 'run', expected)


def test_a_lost_process_ends_the_others_and_all_go_on(data_dir, expected, tmp_path):
    """Killed, stopped, told to stop; each time resumed on another layout."""
    workdir = tmp_path / 'run'
    for number, step, options in (
        (signal.SIGKILL, 0, {}),
        (signal.SIGSTOP, 4, {'parallel.mode': 'pmap'}),
    ):
        first, second = start(workdir, data_dir, 2, **options)
        wait_for_checkpoint(workdir, step)
        second.send_signal(number)
        begun = time.monotonic()
        (errors,) = finish([first], distributed.STATUS)
        assert time.monotonic() - begun < 3 * HEARTBEAT  # and what it takes on a busy machine
        assert re.fullmatch(r'train.py: process 0 of 2 .* on all hosts\.\n', errors)
        second.kill()
        second.communicate()
    newest = max((workdir / 'checkpoints').iterdir(), key=lambda path: int(path.name))
    for file in newest.glob('*/ocdbt.process_1/d/*'):  # only some processes will notice
        file.write_bytes(b'damaged')
    started = start(workdir, data_dir, 4, **{'parallel.fsdp': 8, 'parallel.data': 1})
    wait_for_checkpoint(workdir, 8)
    started[1].send_signal(signal.SIGTERM)
    saved = 'the run is saved; run the same command to resume\n'
    first, second, *others = finish(started, 75)
    for errors in (first, *others):
        assert errors.endswith(f'train.py: a signal to another process: {saved}')
    assert second.endswith(f'train.py: SIGTERM: {saved}')
    assert 'the checkpoint is damaged' in first
    train_here(workdir, data_dir)
    assert_same(workdir, expected)


def test_a_stuck_process_ends_the_others(data_dir, tmp_path):
    options = {'distributed.step_seconds': 6.0}
    first, second = start(tmp_path / 'run', data_dir, 2, others=('-c', STUCK), **options)
    (errors,) = finish([first], distributed.STATUS)
    second.kill()
    second.communicate()
    expected = 'train.py: process 0 of 2 has waited 6 s in a step: is another one stuck\\? .*\n'
    assert re.fullmatch(expected, errors)


def test_a_first_process_that_cannot_be_reached_is_named():
    program = f"""
from vit_jax.parallel import distributed
from vit_jax.train.config import load_config
distributed.INITIALIZATION_SECONDS = 2
distributed.join(coordinator_address='127.0.0.1:1', num_processes=2, process_id=1,
                 heartbeat_seconds={HEARTBEAT}, step_seconds=1.0)
"""
    _, errors = processes.run('-c', program, status=distributed.STATUS)
    assert re.fullmatch(r'-c: process 1 cannot reach the first one\. .*\n', errors)


EXPLICIT = {'coordinator_address': 'a:1', 'num_processes': 2, 'process_id': 1}


@pytest.mark.parametrize(
    'wrong, message',
    [
        ({'process_id': None}, 'distributed.process_id: expected a value, as the others'),
        ({'process_id': 2}, 'distributed.process_id: expected less than num_processes=2, got 2'),
        ({'coordinator_address': 'a'}, "distributed.coordinator_address: .* HOST:PORT, got 'a'"),
    ],
)
def test_wrong_processes_raise(wrong, message):
    with pytest.raises(InputError, match=message):
        distributed.join(**EXPLICIT | wrong, heartbeat_seconds=1, step_seconds=1.0)


@pytest.mark.parametrize(
    'environment, expected',
    [
        ({}, False),
        ({'SLURM_NTASKS': '1'}, False),
        ({'SLURM_NTASKS': '4'}, True),
        ({'OMPI_COMM_WORLD_SIZE': '2'}, True),
        ({'KUBERNETES_SERVICE_HOST': '10.0.0.1'}, False),
        ({'KUBERNETES_SERVICE_HOST': '10.0.0.1', 'JOB_COMPLETION_INDEX': '0'}, True),
    ],
)
def test_launchers_are_recognised(environment, expected):
    assert distributed._in_cluster(environment) == expected
