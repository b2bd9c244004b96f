import itertools
import json
import os
import random
import re
import shutil
import signal

import jax
import numpy as np
import processes
import pytest

import vit_jax
from vit_jax.errors import InputError
from vit_jax.run.checkpoint import Checkpoints
from vit_jax.run.metrics import read_metrics
from vit_jax.run.report import Reporter
from vit_jax.run.signals import Interrupted
from vit_jax.train.evaluate import evaluate
from vit_jax.train.trainer import train


def final_params(workdir):
    return vit_jax.load_weights(workdir)[1]


def test_killed_run_ends_like_an_undisturbed_one(tmp_path, data_dir):
    """SIGKILL between two checkpoints; the test after this one draws the moment."""
    flags = ['--config.num_steps=60', '--config.checkpoint_every_steps=10']
    flags += ['--config.batch_size=16', '--config.log_every_steps=1']
    flags += ['--config.model.dim=16', '--config.model.depth=2']
    flags += ['--config=configs/digits.py', f'--config.data.dir={data_dir}']
    assert processes.train_py(*flags, f'--workdir={tmp_path / "whole"}') == 0
    command = ['train.py', *flags, f'--workdir={tmp_path / "killed"}']
    process = processes.start(*command, devices=8)
    assert any(line.startswith('step 25/60') for line in process.stdout)
    process.kill()
    process.communicate()
    output, _ = processes.run(*command, devices=8)
    assert re.search('killed: (10|20) of 60 steps are done', output)  # 20 may not be complete
    whole, killed = tmp_path / 'whole', tmp_path / 'killed'
    jax.tree.map(np.testing.assert_array_equal, final_params(whole), final_params(killed))
    whole, killed = (read_metrics(run / 'metrics.jsonl') for run in (whole, killed))
    losses = [(line['step'], line['split'], line['loss']) for line in whole]
    assert losses == [(line['step'], line['split'], line['loss']) for line in killed]


@pytest.mark.slow
def test_run_killed_at_a_random_moment_ends_like_an_undisturbed_one(tmp_path, data_dir):
    seed = random.randrange(1000)
    result = survive('--kills', 1, '--seed', seed, tmp_path=tmp_path, data=data_dir)
    assert result['failures'] == [] and result['layouts: kills'] == 1


@pytest.mark.slow
def test_interrupted_runs_end_like_undisturbed_ones(tmp_path, data_dir):
    result = survive('--signals', 3, tmp_path=tmp_path, data=data_dir)
    assert result['failures'] == []


@pytest.mark.slow
def test_full_disk_ends_in_one_line_and_loses_no_checkpoint(tmp_path, data_dir):
    if shutil.which('unshare') is None or os.system('unshare --map-root-user --mount true'):
        pytest.skip('needs the right to mount a file system in a namespace')
    result = survive('--disks', 1, tmp_path=tmp_path, data=data_dir)
    assert result['failures'] == [] and result['disks filled'] == 1


def survive(*what, tmp_path, data):
    """Runs `benchmarks/survival.py`, with nothing but what is asked for."""
    none = ['--kills', 0, '--signals', 0, '--disks', 0, '--steps', 60]
    files = ['--data-dir', data, '--output', tmp_path / 'survival.json']
    processes.run('benchmarks/survival.py', *none, *what, *files)
    return json.loads((tmp_path / 'survival.json').read_text())


def test_signal_during_training_is_saved_and_ends_with_status_75(tmp_path, data_dir):
    flags = ['--config.num_steps=100000', '--config.batch_size=16', '--config.log_every_steps=1']
    flags += ['--config.model.dim=16', '--config.model.depth=1', '--config.eval_every_steps=0']
    command = ['train.py', '--config=configs/digits.py', *flags, f'--config.data.dir={data_dir}']
    process = processes.start(*command, f'--workdir={tmp_path}')
    lines = itertools.takewhile(lambda line: ' 3/100000  train' not in line, process.stdout)
    assert len(list(lines)) >= 3
    process.stdout.close()  # as Ctrl-C ends `| tee log` too
    process.send_signal(signal.SIGTERM)
    errors = process.communicate()[1]
    assert process.returncode == 75, errors
    asked, saved = errors.splitlines()
    assert 'SIGTERM: saving after this step' in asked and 'the run is saved' in saved
    steps = [line['step'] for line in read_metrics(tmp_path / 'metrics.jsonl')]
    assert steps == list(range(1, len(steps) + 1)) and len(steps) >= 3
    assert (tmp_path / 'checkpoints' / str(steps[-1])).is_dir()


def test_keyboard_interrupt_of_a_library_user_is_saved(digits_config, tmp_path, monkeypatch):
    def interrupt(self, step, metrics):
        report(self, step, metrics)
        if step == 4:
            signal.raise_signal(signal.SIGINT)

    report, handler = Reporter.train, signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(Reporter, 'train', interrupt)
    digits_config.checkpoint_every_steps = 0
    with pytest.raises(KeyboardInterrupt):
        train(digits_config, str(tmp_path))
    assert signal.getsignal(signal.SIGINT) is handler
    assert (tmp_path / 'checkpoints' / '4').is_dir()
    with pytest.raises(InputError, match='no checkpoint has been evaluated, so none is the best'):
        vit_jax.Predictor(tmp_path, step='best')


def test_interrupted_evaluation_is_repeated(digits_config, tmp_path, monkeypatch):
    digits_config.eval_every_steps = 2
    train(digits_config, str(tmp_path / 'whole'))

    def interrupt(*arguments):
        signal.raise_signal(signal.SIGTERM)
        return evaluate(*arguments)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr('vit_jax.train.trainer.evaluate', interrupt)
        train(digits_config, str(tmp_path / 'both'))
    train(digits_config, str(tmp_path / 'both'))
    whole, both = (read_metrics(tmp_path / name / 'metrics.jsonl') for name in ('whole', 'both'))
    losses = [(line['step'], line['split'], line['loss']) for line in whole]
    assert losses == [(line['step'], line['split'], line['loss']) for line in both]


def test_the_record_of_a_checkpoint_has_its_metrics_whatever_happens(
    digits_config, tmp_path, monkeypatch, capsys
):
    """The final evaluation is interrupted, then its line in metrics.jsonl is damaged."""

    def interrupt(*arguments):
        signal.raise_signal(signal.SIGTERM)
        return evaluate(*arguments)

    digits_config.checkpoint_every_steps = 0
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr('vit_jax.train.trainer.evaluate', interrupt)
        train(digits_config, str(tmp_path))
    result = train(digits_config, str(tmp_path))
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.best() == 6
        assert checkpoints.metrics(6) == {name: result[name] for name in ('loss', 'accuracy')}
    path = tmp_path / 'metrics.jsonl'
    *lines, last = path.read_text().splitlines()
    for damaged in (
        last.replace('"accuracy": 0.', '"accuracy": 0.9'),
        last.replace('accu', 'acku'),
    ):
        path.write_text('\n'.join([*lines, damaged]))
        assert train(digits_config, str(tmp_path)) == result
    path.write_text('\n'.join([*lines, last.replace('test', 't\\ud800t')]))
    assert train(digits_config, str(tmp_path)) == result
    assert 'damaged lines, left out: 1' in capsys.readouterr().err


def test_a_save_that_fails_after_a_signal_is_an_error(digits_config, tmp_path, monkeypatch):
    def interrupt(self, step, metrics):
        report(self, step, metrics)
        if step == 4:
            shutil.rmtree(tmp_path / 'checkpoints')
            (tmp_path / 'checkpoints').write_text('in the way')
            signal.raise_signal(signal.SIGINT)

    report = Reporter.train
    monkeypatch.setattr(Reporter, 'train', interrupt)
    digits_config.checkpoint_every_steps = 0
    with pytest.raises(OSError, match='checkpoint 4 cannot be written'):
        train(digits_config, str(tmp_path))


def test_checkpoints_by_the_clock_are_not_evaluated(digits_config, tmp_path):
    digits_config.checkpoint_every_steps = 0
    digits_config.checkpoint_every_minutes = 1e-9
    train(digits_config, str(tmp_path))
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert (checkpoints.steps, checkpoints.best()) == ([5, 6], 6)
    lines = read_metrics(tmp_path / 'metrics.jsonl')
    assert [line['step'] for line in lines if line['split'] == 'test'] == [6]


def test_metrics_without_a_checkpoint_stop_the_run(digits_config, digits_run, tmp_path):
    shutil.rmtree(tmp_path / 'checkpoints')
    before = (tmp_path / 'metrics.jsonl').read_bytes()
    with pytest.raises(InputError, match='has metrics up to step 6, but no checkpoint'):
        train(digits_config, str(tmp_path))
    assert (tmp_path / 'metrics.jsonl').read_bytes() == before


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
    digits_config.num_steps = 4
    with pytest.raises(InputError, match='expected at least the 6 steps that the run has done, go'):
        train(digits_config, str(tmp_path))


def test_resuming_drops_metrics_of_unsaved_steps(digits_config, digits_run, tmp_path, capsys):
    with (tmp_path / 'metrics.jsonl').open('a') as file:
        file.write('{"step": 7, "split": "train", "loss": 1.0, "accuracy": 0.5}\n{"step": 8, "spl')
    digits_config.num_steps = 8
    train(digits_config, str(tmp_path))
    steps = [line['step'] for line in read_metrics(tmp_path / 'metrics.jsonl')]
    assert steps == [2, 3, 4, 6, 6, 8, 8]
    assert '6 of 8 steps are done' in capsys.readouterr().out
