import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from functools import partial

import jax
import numpy as np
import optax
import pytest
from conftest import ROOT

import vit_jax
from vit_jax.data.sources import open_source, open_split
from vit_jax.errors import InputError
from vit_jax.parallel.parallel import create_parallel
from vit_jax.run.checkpoint import Checkpoints
from vit_jax.run.metrics import Reporter, read_metrics
from vit_jax.train.build import model_arguments
from vit_jax.train.config import LARGEST, RANGES
from vit_jax.train.evaluate import evaluate
from vit_jax.train.step import create_state, eval_step
from vit_jax.train.trainer import count_steps, train
from vit_jax.weights.run import load_run

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
]


def start(workdir, data_dir, *flags):
    environment = {k: v for k, v in os.environ.items() if k != 'XLA_FLAGS'}
    command = [sys.executable, 'train.py', *SMALL, f'--workdir={workdir}']
    return subprocess.Popen(
        [*command, f'--config.data.dir={data_dir}', *flags],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def final_params(workdir):
    return vit_jax.load_weights(workdir)[1]


def newest_checkpoint(workdir):
    steps = (path.name for path in workdir.glob('checkpoints/*'))
    return max((int(step) for step in steps if step.isdecimal()), default=0)


def test_killed_run_goes_on_to_bit_identical_parameters(tmp_path, data_dir):
    """Real processes, killed with SIGKILL at random moments until one comes through."""
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
    resumed = re.search(r'(\d+|all) (of )?60 steps are done', output)
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
    subprocess.run([sys.executable, '-c', program], cwd=ROOT, check=True)
    assert read_metrics(tmp_path / 'run' / 'metrics.jsonl')[-1]['step'] == 8


def test_run_directory_is_whole(digits_config, tmp_path, capsys):
    result = train(digits_config, str(tmp_path))
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
    assert lines[0]['learning_rate'] == pytest.approx(5e-4)  # half-way through the warm-up
    assert json.loads((tmp_path / 'config.json').read_text())['model']['dim'] == 16
    description = json.loads((tmp_path / 'description.json').read_text())
    assert description['class_names'] == list('0123456789')
    assert description['preprocessing']['image_size'] == [8, 8]
    assert list((tmp_path / 'tensorboard').iterdir())
    printed = capsys.readouterr().out.splitlines()
    pictures = '1,437 pictures in memory to train on, 360 pictures in memory to test'
    assert printed[0] == f'tfds:digits: {pictures}, 10 classes'
    assert len(printed) == 6 and printed[-1].startswith('step 6/6  test')


def test_tensorboard_shows_what_metrics_jsonl_does(digits_config, tmp_path):
    from tensorboardX.proto.event_pb2 import Event

    train(digits_config, str(tmp_path))
    scalars = {}
    for path in (tmp_path / 'tensorboard').iterdir():
        content = path.read_bytes()
        while content:  # TFRecord: length, its checksum, the message, its checksum
            length = int.from_bytes(content[:8], 'little')
            event = Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            for value in event.summary.value:
                scalars[event.step, value.tag] = value.simple_value
    for line in read_metrics(tmp_path / 'metrics.jsonl'):
        step, split = line.pop('step'), line.pop('split')
        for name, value in line.items():
            assert scalars.pop((step, f'{split}/{name}')) == pytest.approx(value)
    assert not scalars


def test_finished_run_says_so_and_trains_no_more(digits_config, tmp_path, capsys):
    first = train(digits_config, str(tmp_path))
    before = (tmp_path / 'metrics.jsonl').read_text()
    capsys.readouterr()
    assert train(digits_config, str(tmp_path)) == first
    assert 'all 6 steps are done' in capsys.readouterr().out
    assert (tmp_path / 'metrics.jsonl').read_text() == before
    (tmp_path / 'metrics.jsonl').unlink()
    again = train(digits_config, str(tmp_path))
    assert again['accuracy'] == first['accuracy'] and again['step'] == 6


def test_resuming_drops_lines_of_steps_that_were_not_saved(digits_config, tmp_path, capsys):
    train(digits_config, str(tmp_path))
    with (tmp_path / 'metrics.jsonl').open('a') as file:
        file.write('{"step": 7, "split": "train", "loss": 1.0, "accuracy": 0.5}\n{"step": 8, "spl')
    digits_config.num_steps = 8
    train(digits_config, str(tmp_path))
    steps = [line['step'] for line in read_metrics(tmp_path / 'metrics.jsonl')]
    assert steps == [2, 3, 4, 6, 6, 8, 8]
    assert '6 of 8 steps are done' in capsys.readouterr().out


def test_newest_and_best_checkpoints_are_kept(tmp_path):
    tree = {'params': {'a': jax.numpy.zeros(3)}}
    with Checkpoints(tmp_path) as checkpoints:
        for step, accuracy in [(1, 0.2), (2, 0.8), (3, 0.8), (4, 0.5), (5, 0.6)]:
            filled = {'params': {'a': jax.numpy.full(3, step, float)}}
            checkpoints.save(step, filled, {'accuracy': accuracy})
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert (checkpoints.steps, checkpoints.newest, checkpoints.best) == ([3, 5], 5, 3)
        assert checkpoints.restore(3, tree)['params']['a'].tolist() == [3.0] * 3


def test_interrupted_run_goes_on_in_the_other_mode(digits_config, tmp_path, monkeypatch, capsys):
    """Half of it under jit, half under pmap, is what jit does alone."""
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


def test_not_a_number_stops_the_run_with_the_step_named(digits_config, tmp_path):
    """The learning rate rises until the step that is too far; what was saved before it is sound."""
    digits_config.optim.name = 'sgd'
    digits_config.optim.learning_rate = 1e4
    digits_config.optim.clip_norm = 0.0
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


def test_parameters_that_became_not_a_number_are_not_saved(digits_config, tmp_path):
    """Loss and gradient of the last step are fine; only its update is not."""
    digits_config.optim.name = 'sgd'
    digits_config.optim.learning_rate = 1e38
    digits_config.optim.warmup_steps = 1
    digits_config.num_steps = 2  # learning rates 0 and 1e38
    digits_config.augment.label_smoothing = 0.0
    with pytest.raises(FloatingPointError, match='step 2: loss is'):
        train(digits_config, str(tmp_path))
    assert not list((tmp_path / 'checkpoints').iterdir())


@pytest.mark.parametrize('mode, num_devices', [('jit', 1), ('jit', 8), ('pmap', 8)])
@pytest.mark.parametrize('batch_size', [8, 40, 64, 400])  # 40 divides 360, 64 does not, 400 is more
def test_evaluation_counts_each_example_once(data_dir, mode, num_devices, batch_size):
    from vit_jax.data.preprocess import Preprocessing

    preprocessing = Preprocessing((8, 8), 1, (0.5,), (0.5,))
    examples = open_split(open_source('tfds:digits', data_dir), 'test', preprocessing)
    assert len(examples.labels) == 360
    model = vit_jax.ViT(
        image_size=8, patch_size=4, num_classes=10, dim=8, depth=1, heads=1, mlp_dim=8, channels=1
    )
    optimizer = optax.sgd(0.1)
    images = preprocessing.normalize(jax.numpy.asarray(examples.images))
    state = create_state(jax.random.key(0), images[:1], model=model, optimizer=optimizer)
    logits = np.float64(model.apply({'params': state.params}, images))
    log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    loss = -log_probabilities[np.arange(360), examples.labels].mean()
    accuracy = (logits.argmax(-1) == examples.labels).mean()

    parallel = create_parallel(mode, batch_size, jax.devices()[:num_devices])
    step = parallel.eval_step(partial(eval_step, model=model, normalize=preprocessing.normalize))
    run_step = partial(step, parallel.spread(state))
    metrics = evaluate(run_step, parallel, examples)
    assert metrics['accuracy'] == pytest.approx(accuracy, abs=1e-12)
    assert metrics['loss'] == pytest.approx(loss, rel=1e-5)


def test_steps_win_over_epochs(digits_config):
    assert count_steps(digits_config, 1437) == 6
    digits_config.num_steps = None
    digits_config.num_epochs = 2.5
    assert count_steps(digits_config, 100) == 16  # 2.5 * 100 / 16, rounded up
    digits_config.num_epochs = 0.0
    with pytest.raises(InputError, match='at least one step'):
        count_steps(digits_config, 100)


@pytest.mark.parametrize('name', [*RANGES, *LARGEST])
def test_numbers_out_of_range_are_told_before_anything_is_built(digits_config, tmp_path, name):
    low, high = RANGES[name] if name in RANGES else (0, np.nextafter(LARGEST[name], np.inf))
    *path, last = name.split('.')
    section = digits_config[path[0]] if path else digits_config
    kind = section.get_type(last)
    bad = [low - 1] + ([high] if high < float('inf') else [])
    for value in [*bad, *([float('nan'), float('inf')] if kind is float else [])]:
        config = digits_config.copy_and_resolve_references()
        config.update_from_flattened_dict({name: kind(value)})
        with pytest.raises(InputError, match=f'^{name}: expected'):
            train(config, str(tmp_path / 'run'))
    assert not (tmp_path / 'run').exists()


def test_a_variant_in_the_config_wins_over_its_sizes(digits_config):
    digits_config.model.variant = 'Ti/4'
    arguments = model_arguments(digits_config.model)
    assert 'variant' not in arguments
    model = vit_jax.ViT(image_size=8, num_classes=10, **arguments)
    assert (model.dim, model.depth, model.patch_size, model.gelu) == (192, 12, 4, 'tanh')
    assert model.pool == 'mean'  # not the variant's to say
    digits_config.model.variant = None
    assert model_arguments(digits_config.model)['dim'] == digits_config.model.dim


def test_attention_that_the_device_lacks_is_told(digits_config, tmp_path):
    digits_config.model.dtype = 'bfloat16'
    digits_config.model.attention = 'cudnn'
    with pytest.raises(InputError, match="attention='cudnn': .* Choose 'xla'"):
        train(digits_config, str(tmp_path))
