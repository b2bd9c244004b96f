import random
import re
import signal
import subprocess
import time
from functools import partial

import jax
import numpy as np
import processes
import pytest

import vit_jax
from vit_jax.run.metrics import Reporter, read_metrics
from vit_jax.train.trainer import train

SMALL = [
    '--config=configs/digits.py',
    '--config.num_steps=60',
    '--config.checkpoint_every_steps=10',
    '--config.eval_every_steps=0',
    '--config.log_every_steps=5',
    '--config.batch_size=16',
    '--config.model.dim=16',
    '--config.model.depth=2',
    '--config.model.dropout=0.1',
    '--config.optim.warmup_steps=5',
    '--config.data.test_split=test[:48]',
]


def start(workdir, data_dir):
    command = ['train.py', *SMALL, f'--workdir={workdir}', f'--config.data.dir={data_dir}']
    return processes.start(*command, stderr=subprocess.STDOUT)


def final_params(workdir):
    return vit_jax.load_weights(workdir)[1]


def newest_checkpoint(workdir):
    steps = (path.name for path in workdir.glob('checkpoints/*'))
    return max((int(step) for step in steps if step.isdecimal()), default=0)


def test_killed_run_resumes_to_bit_identical_parameters(tmp_path, data_dir):
    """Real processes, killed with SIGKILL at random moments, up to three times."""
    whole = start(tmp_path / 'whole', data_dir)
    output = whole.communicate()[0]
    assert whole.returncode == 0, output

    rng = random.Random()
    kills, delays = [], []
    killed = tmp_path / 'killed'
    while len(kills) < 3:
        before = newest_checkpoint(killed)
        process = start(killed, data_dir)
        while newest_checkpoint(killed) <= before and process.poll() is None:
            time.sleep(0.01)  # until this process has saved something
        delays.append(rng.uniform(0, 0.3))
        time.sleep(delays[-1])
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills.append(process.returncode)
        if process.returncode == 0:
            break
    assert kills[0] == -signal.SIGKILL, 'the first run finished before it could be killed'
    last = start(killed, data_dir)
    output = last.communicate()[0]
    assert last.returncode == 0, output
    resumed = re.search(r'(\d+) of 60 steps are done', output)
    assert resumed, (output, delays)

    jax.tree.map(
        np.testing.assert_array_equal,
        final_params(tmp_path / 'killed'),
        final_params(tmp_path / 'whole'),
    )
    timings = {'images_per_second'}
    lines = [
        [{k: v for k, v in line.items() if k not in timings} for line in read_metrics(path)]
        for path in (tmp_path / 'killed' / 'metrics.jsonl', tmp_path / 'whole' / 'metrics.jsonl')
    ]
    assert [(line['step'], line['split']) for line in lines[0]] == [
        (line['step'], line['split']) for line in lines[1]
    ]
    assert [line for line in lines[0] if line['split'] == 'test'] == [
        line for line in lines[1] if line['split'] == 'test'
    ]


def test_training_imports_no_tensorflow_once_data_is_prepared(tmp_path, data_dir):
    program = f"""
import sys
sys.argv = ['train.py', *{SMALL!r}, '--config.num_steps=8', '--workdir={tmp_path / 'run'}',
            '--config.data.dir={data_dir}']
import runpy
try:
    runpy.run_path('train.py', run_name='__main__')
except SystemExit as end:
    assert not end.code, end.code
assert 'jax' in sys.modules
assert 'tensorflow' not in sys.modules
"""
    processes.run('-c', program)
    assert read_metrics(tmp_path / 'run' / 'metrics.jsonl')[-1]['step'] == 8


def test_finished_run_is_reported_and_not_trained_further(digits_config, tmp_path, capsys):
    first = train(digits_config, str(tmp_path))
    before = (tmp_path / 'metrics.jsonl').read_text()
    capsys.readouterr()
    assert train(digits_config, str(tmp_path)) == first
    assert '6 of 6 steps are done' in capsys.readouterr().out
    assert (tmp_path / 'metrics.jsonl').read_text() == before
    (tmp_path / 'metrics.jsonl').unlink()
    again = train(digits_config, str(tmp_path))
    assert again['accuracy'] == first['accuracy'] and again['step'] == 6


def test_resuming_drops_metrics_of_unsaved_steps(digits_config, tmp_path, capsys):
    train(digits_config, str(tmp_path))
    with (tmp_path / 'metrics.jsonl').open('a') as file:
        file.write('{"step": 7, "split": "train", "loss": 1.0, "accuracy": 0.5}\n{"step": 8, "spl')
    digits_config.num_steps = 8
    train(digits_config, str(tmp_path))
    steps = [line['step'] for line in read_metrics(tmp_path / 'metrics.jsonl')]
    assert steps == [2, 3, 4, 6, 6, 8, 8]
    assert '6 of 8 steps are done' in capsys.readouterr().out


def test_interrupted_run_resumes_in_the_other_mode(digits_config, tmp_path, monkeypatch, capsys):
    """Half under jit and half under pmap equals all under jit."""
    digits_config.optim.name = 'sgd'
    digits_config.optim.learning_rate = 0.1
    train(digits_config, str(tmp_path / 'whole'))

    def interrupt(self, step, metrics):
        if step == 4:
            raise KeyboardInterrupt
        return report(self, step, metrics)

    report = Reporter.train
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Reporter, 'train', interrupt)
        train(digits_config, str(tmp_path / 'both'))
    digits_config.parallel.mode = 'pmap'
    train(digits_config, str(tmp_path / 'both'))
    assert '3 of 6 steps are done' in capsys.readouterr().out
    params = [final_params(tmp_path / name) for name in ('both', 'whole')]
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), *params)
