"""Several processes as one run, through train.py itself: the same end, and they end together."""

import json
import re
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

HEARTBEAT = 6  # seconds
OPTIONS = {
    'batch_size': 16,
    'num_steps': 12,
    'checkpoint_every_steps': 3,
    'eval_every_steps': 6,
    'log_every_steps': 1,
    'data.train_split': 'train[:100]',
    'data.test_split': 'test[:50]',
    'model.dim': 32,
    'model.dim_head': 8,
    'model.depth': 2,
    'model.mlp_dim': 64,
    'augment.mixup_alpha': 0.2,
    'optim.warmup_steps': 2,
    'distributed.heartbeat_seconds': HEARTBEAT,
}
# train.py, but this process gets a signal after a step.
DISTURBED = """
import signal
from vit_jax.run.report import Reporter
take = Reporter.train
def train(self, step, metrics):
    take(self, step, metrics)
    if step == {step}:
        signal.raise_signal({number})
Reporter.train = train
from vit_jax.__main__ import run_and_exit
run_and_exit('train.py', 'train')
"""
# A loop of steps, in which something happens to the second process.
LOOP = """
import signal, time
from vit_jax.parallel.distributed import Wishes, join
join(coordinator_address='127.0.0.1:{port}', num_processes=2, process_id={i},
     connect_seconds=60, heartbeat_seconds={heartbeat}, step_seconds={step})
with Wishes(1) as wishes:
    for step in range(9):
        wishes(False)
        if {i} == 1 and step == 3:
            {happens}
"""
SAVED = 'the run is saved; run the same command to resume'
AGAIN = 'Run the same command again on all hosts.'


def free_port():
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return free.getsockname()[1]


def start(workdir, data_dir, number, program=('train.py',), **options):
    """Starts the processes of a run, with eight devices in all; the last one runs `program`."""
    options = OPTIONS | options | {'data.dir': data_dir, 'distributed.num_processes': number}
    options['distributed.coordinator_address'] = f'127.0.0.1:{free_port()}'
    arguments = [f'--config.{name}={value}' for name, value in options.items()]
    return [
        processes.start(
            *(program if i == number - 1 else ['train.py']),
            '--config=configs/digits.py',
            f'--workdir={workdir}',
            *arguments,
            f'--config.distributed.process_id={i}',
            devices=8 // number,
        )
        for i in range(number)
    ]


def finish(started, status):
    """What each process wrote to stderr, once all have ended."""
    try:
        ends = [process.communicate(timeout=150) for process in started]
    finally:
        for process in started:
            process.kill()
    codes = [process.returncode for process in started]
    assert codes == [status] * len(started), ends
    return [errors for _, errors in ends]


def end_without_last(started):
    """What all but the last process wrote to stderr, once they have ended without it."""
    *others, last = started
    try:
        return finish(others, distributed.STATUS)
    finally:
        last.kill()
        last.communicate()


def metrics(workdir):
    lines = (workdir / 'metrics.jsonl').read_text().splitlines()
    return [(line['step'], line['split'], line['loss']) for line in map(json.loads, lines)]


def test_processes_train_as_one_and_end_together(data_dir, tmp_path):
    """One is told to stop, one killed; each time resumed on another layout."""
    workdir = tmp_path / 'run'
    on_all_axes = {'parallel.data': 2, 'parallel.fsdp': 2, 'parallel.tensor': 2}
    told = ('-c', DISTURBED.format(step=3, number='signal.SIGTERM'))
    first, last = finish(start(workdir, data_dir, 2, told, **on_all_axes), 75)
    assert first.endswith(f'train.py: a signal to another process: {SAVED}\n')
    assert last.endswith(f'train.py: SIGTERM: {SAVED}\n')

    steps = [int(x.name) for x in (workdir / 'checkpoints').iterdir() if x.name.isdecimal()]
    newest = workdir / 'checkpoints' / str(max(steps))
    for file in newest.glob('*/ocdbt.process_1/d/*'):  # only some processes will notice
        file.write_bytes(b'damaged')
    killed = ('-c', DISTURBED.format(step=8, number='signal.SIGKILL'))
    said = end_without_last(start(workdir, data_dir, 4, killed, **{'parallel.fsdp': 8}))
    for i, lines in enumerate(said):
        assert lines.count('\n') == 2, lines
        damage, line = lines.splitlines()
        assert 'the checkpoint is damaged' in damage
        assert re.fullmatch(f'train.py: process {i} of 4 has lost another one.* {AGAIN}', line)
    assert time.time() - (workdir / 'metrics.jsonl').stat().st_mtime < 10 * HEARTBEAT

    assert finish(start(workdir, data_dir, 2, **{'parallel.mode': 'pmap'}), 0) == ['', '']
    expected = tmp_path / 'expected'  # in this process, with its eight devices
    vit_jax.train(load_config('digits', OPTIONS | {'data.dir': data_dir}), str(expected))
    parameters = [vit_jax.load_weights(str(path))[1] for path in (workdir, expected)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *parameters)
    for (*place, loss), (*expected_place, expected_loss) in zip(
        metrics(workdir), metrics(expected), strict=True
    ):
        assert place == expected_place
        assert loss == pytest.approx(expected_loss, rel=1e-4)


@pytest.mark.parametrize(
    'happens, options, line',
    [
        (
            'signal.raise_signal(signal.SIGSTOP)',
            {'heartbeat': 3, 'step': 100.0},
            'has lost another one, or had no sign of life from it for 3 s.',
        ),
        (
            'time.sleep(1000)',
            {'heartbeat': 100, 'step': 2.0},
            'has waited 2 s in a step: is another one stuck?',
        ),
    ],
    ids=['stopped', 'stuck'],
)
def test_a_process_that_is_stopped_or_stuck_ends_the_others(happens, options, line):
    options |= {'happens': happens, 'port': free_port()}
    patient = options | {'step': 1000.0}  # so that the second one does not end by itself
    programs = LOOP.format(i=0, **options), LOOP.format(i=1, **patient)
    started = [processes.start('-c', program) for program in programs]
    assert end_without_last(started) == [f'-c: process 0 of 2 {line} {AGAIN}\n']


def test_a_process_that_finds_no_others_ends_in_one_line():
    program = """
from vit_jax.parallel.distributed import join
join(coordinator_address='127.0.0.1:1', num_processes=2, process_id=1,
     connect_seconds=2, heartbeat_seconds=100, step_seconds=1.0)
"""
    _, errors = processes.run('-c', program, status=distributed.STATUS)
    expected = '-c: process 1 has not connected to all others within 2 s: .* 127.0.0.1:1\\? .*\n'
    assert re.fullmatch(expected, errors)


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
        distributed.join(
            **EXPLICIT | wrong, connect_seconds=1, heartbeat_seconds=1, step_seconds=1.0
        )


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
