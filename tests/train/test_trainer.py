import json
import re
import time

import jax
import numpy as np
import pytest
from jax import monitoring

import vit_jax
from vit_jax.data.order import TrainOrder
from vit_jax.errors import InputError
from vit_jax.run.json_files import read_json
from vit_jax.run.metrics import read_metrics
from vit_jax.run.report import Reporter
from vit_jax.train.evaluate import evaluate
from vit_jax.train.trainer import train
from vit_jax.weights.run_directory import load_run


def test_run_directory_is_complete(digits_config, tmp_path, capsys, monkeypatch):
    def evaluate_slowly(*arguments):
        time.sleep(1)
        return evaluate(*arguments)

    monkeypatch.setattr('vit_jax.train.trainer.evaluate', evaluate_slowly)
    result = vit_jax.train(digits_config, str(tmp_path))
    lines = read_metrics(tmp_path / 'metrics.jsonl')
    assert [(line['step'], line['split']) for line in lines] == [
        (2, 'train'),
        (3, 'test'),
        (4, 'train'),
        (6, 'train'),
        (6, 'test'),
    ]
    assert result == lines[-1]
    assert {
        'loss',
        'accuracy',
        'grad_norm',
        'learning_rate',
        'images_per_second',
        'data_wait',
    } <= set(lines[0])
    assert [line['epoch'] for line in lines] == [2 / 6, 3 / 6, 4 / 6, 1, 1]
    assert lines[3]['images_per_second'] > 2 * 16 / 1  # evaluating after it does not count
    assert lines[0]['learning_rate'] == pytest.approx(5e-4)  # half-way through the warm-up
    assert json.loads((tmp_path / 'config.json').read_text())['model']['dim'] == 16
    description = json.loads((tmp_path / 'description.json').read_text())
    assert description['class_names'] == list('0123456789')
    assert description['preprocessing']['image_size'] == [8, 8]
    assert list((tmp_path / 'tensorboard').iterdir())
    printed = capsys.readouterr().out.splitlines()
    pictures = '96 pictures in memory to train on, 48 pictures in memory to test'
    assert printed[0] == f'tfds:digits: {pictures}, 10 classes'
    assert printed[1] == '6 steps of 16 pictures: 1.0 epochs of 6.0 steps; warm-up over 2'
    sizes = 'dim 16, depth 2, 2 heads of 16, mlp_dim 24, patches of 2 x 2'
    assert f'parameters: {sizes}; ' in printed[2] and printed[2].endswith(' GFLOP for a picture')
    assert printed[3] == f'8 x cpu; writing to {tmp_path}'
    assert printed[4].startswith('few steps to learn in')
    assert len(printed) == 10 and printed[-1].startswith('step 6/6  test')


def test_time_left_is_estimated_where_the_first_line_is_far(
    digits_config, tmp_path, monkeypatch, capsys
):
    digits_config.log_every_steps = 0
    digits_config.checkpoint_every_steps = 0
    monkeypatch.setattr('vit_jax.run.report.ESTIMATE', 0)
    train(digits_config, str(tmp_path))
    estimates = [x for x in capsys.readouterr().out.splitlines() if ' s a step, ' in x]
    assert len(estimates) == 1
    assert re.match(r'step 2 of 6: [\d.e-]+ s a step, 00:00 left', estimates[0])


def test_non_finite_loss_stops_the_run_and_names_the_step(digits_config, tmp_path):
    """The learning rate rises until training diverges; checkpoints saved before are finite."""
    digits_config.optim.name = 'sgd'
    digits_config.optim.learning_rate = 1e4
    digits_config.optim.clip_norm = 0.0
    digits_config.max_loss = 1e300
    digits_config.optim.warmup_steps = 39
    digits_config.num_steps = 40
    digits_config.checkpoint_every_steps = 1
    with pytest.raises(FloatingPointError, match=r'step \d+: \w+ is (nan|inf)') as error:
        train(digits_config, str(tmp_path))
    failed = int(re.search(r'step (\d+)', str(error.value))[1])
    saved = [int(step.name) for step in (tmp_path / 'checkpoints').iterdir()]
    assert saved and max(saved) == failed - 1
    for step in saved:
        params = load_run(tmp_path, step)[1]
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params)), step
    assert all(np.isfinite(line['loss']) for line in read_metrics(tmp_path / 'metrics.jsonl'))
    with pytest.raises(FloatingPointError, match=f'step {failed}'):
        train(digits_config, str(tmp_path))
    examples = TrainOrder(96, 16, range(16), digits_config.seed).examples(failed - 1)
    diverged = read_json(tmp_path / 'diverged.json')
    assert diverged['step'] == failed and re.search('nan|inf', diverged['reason'])
    assert list(diverged['examples']) == examples.tolist()


def test_loss_above_max_loss_stops_the_run(digits_config, tmp_path):
    digits_config.max_loss = 1.0  # ln 10 is 2.3
    with pytest.raises(FloatingPointError, match=r'step 1: loss is 2\.\d+, above max_loss=1;'):
        train(digits_config, str(tmp_path))
    assert len(read_json(tmp_path / 'diverged.json')['examples']) == 16


def test_non_finite_parameters_are_not_saved(digits_config, tmp_path):
    """The last step's loss and gradient are finite; only its update is not."""
    digits_config.optim.name = 'sgd'
    digits_config.optim.learning_rate = 1e38
    digits_config.max_loss = 1e300
    digits_config.optim.warmup_steps = 1
    digits_config.num_steps = 2  # learning rates 0 and 1e38
    digits_config.augment.label_smoothing = 0.0
    with pytest.raises(FloatingPointError, match='step 2: loss is'):
        train(digits_config, str(tmp_path))
    assert [step.name for step in (tmp_path / 'checkpoints').iterdir()] == ['0']


def test_unsupported_attention_raises(digits_config, tmp_path):
    digits_config.model.dtype = 'bfloat16'
    digits_config.model.attention = 'cudnn'
    with pytest.raises(InputError, match="attention='cudnn': .* Choose 'xla'"):
        train(digits_config, str(tmp_path))


def test_everything_is_compiled_once(digits_config, tmp_path, monkeypatch):
    """After the first evaluation and the first checkpoint, nothing is left to compile."""
    digits_config.num_steps = 12
    digits_config.eval_every_steps = 2
    digits_config.checkpoint_every_steps = 4
    compiled, before = [], {}

    def listen(event, duration, **_):
        if event == '/jax/core/compile/backend_compile_duration':
            compiled.append(event)

    def count(self, step, metrics):
        before[step] = len(compiled)
        report(self, step, metrics)

    report = Reporter.train
    monkeypatch.setattr(Reporter, 'train', count)
    jax.clear_caches()
    monitoring.register_event_duration_secs_listener(listen)
    try:
        train(digits_config, str(tmp_path))
    finally:
        monitoring.unregister_event_duration_listener(listen)
    assert 2 <= before[5] == len(compiled)
