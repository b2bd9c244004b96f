"""train.py as a user runs it: what is wrong ends in one line that says so, and exit status 2."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios

import pytest
from conftest import ROOT

from vit_jax.run.metrics import read_metrics

TINY = ['--config.num_steps=4', '--config.optim.warmup_steps=1', '--config.model.depth=1']


def train_py(*flags, devices=1, **options):
    environment = os.environ | {
        'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}',
        'CUDA_VISIBLE_DEVICES': '',
    }
    return subprocess.run(
        [sys.executable, 'train.py', *flags],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        **options,
    )


@pytest.mark.parametrize(
    'flags, message',
    [
        (['--config.optim.learnin_rate=1'], 'Did you mean "learning_rate"'),
        (['--config.optm.name=sgd'], 'Did you mean "optim"'),
        (['--config=configs/none.py'], 'configs/none.py'),
        (['--config.batch_size=many'], "invalid literal for int() with base 10: 'many'"),
        (['--workdri=x'], 'Did you mean: workdir'),
        (['digits'], 'expected only --flags, got digits'),
        (['--config.model.patch_size=3'], 'patch_size must divide image_size'),
        (['--config.batch_size=12'], 'multiple of the 8 devices, got 12'),
        (['--config.data.source=tfds:mnsit'], 'did you mean tfds:mnist'),
        (['--config.parallel.mode=pjit'], "'jit' or 'pmap'"),
        (['--config.optim.name=adam'], 'expected one of adamw, sgd'),
        (['--config.data.test_split=validation'], 'expected a split out of test, train'),
        (['--workdir=/dev/null/run'], 'expected a folder that can be written'),
        (['--config.num_steps=0'], 'num_steps: expected a finite number, at least 1, got 0'),
        (['--config.model.dtype=int8'], 'expected dtype'),
        (['--config.data.image_size=(8,)'], 'expected a size in pixels'),
        (['--config.data.mean=(0.1,0.2)'], 'data.mean'),
        (['--config.data.repeats=3'], 'expected a divisor of the batch_size 128, got 3'),
        (['--config.data.crop_fraction=2'], 'data.crop_fraction: expected 0 to 1, got 2.0'),
        (['--config.augment.policy=all'], 'expected one of none, randaugment, autoaugment'),
        (['--config.augment.color_jitter=(0.4,)'], 'expected (brightness, contrast, saturation'),
        (['--config.augment.color_jitter=(0,0,0,"a")'], 'expected (brightness, contrast'),
    ],
)
def test_wrong_input_ends_in_one_line_and_status_2(flags, message, data_dir, tmp_path):
    defaults = ['--config=configs/digits.py', f'--workdir={tmp_path}']
    result = train_py(*defaults, f'--config.data.dir={data_dir}', *flags, devices=8)
    assert result.returncode == 2, result
    assert result.stderr.count('\n') == 1, result.stderr
    assert message in result.stderr
    assert result.stdout == ''
    assert not list(tmp_path.glob('checkpoints/*'))


def test_workdir_of_another_model_says_what_differs(data_dir, tmp_path):
    flags = ['--config=configs/digits.py', f'--workdir={tmp_path}', f'--config.data.dir={data_dir}']
    assert train_py(*flags, *TINY).returncode == 0
    result = train_py(*flags, *TINY, '--config.model.heads=2')
    assert result.returncode == 2
    assert result.stderr.count('\n') == 1
    assert 'model.heads is 4 there and 2 here' in result.stderr


def test_a_loss_that_is_not_finite_ends_in_one_line_and_status_1(data_dir, tmp_path):
    result = train_py(
        '--config=configs/digits.py',
        f'--workdir={tmp_path}',
        f'--config.data.dir={data_dir}',
        *TINY,
        '--config.optim.learning_rate=1e38',
    )
    assert result.returncode == 1
    assert result.stderr.count('\n') == 1
    assert 'train.py: step ' in result.stderr and 'nothing of it was saved' in result.stderr


def test_configs_of_ones_own_and_another_folder(data_dir, tmp_path):
    """A config outside the repository; the run directory is named after it."""
    (tmp_path / 'mine.py').write_text(
        'from configs import digits\n'
        'def get_config():\n'
        '    config = digits.get_config()\n'
        '    config.num_steps = 4\n'
        '    config.model.depth = 1\n'
        '    config.optim.warmup_steps = 1\n'
        f'    config.data.dir = {data_dir!r}\n'
        '    return config\n'
    )
    command = [sys.executable, str(ROOT / 'train.py'), '--config=mine.py']
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert 'runs/mine: finished after 4 steps, test accuracy' in result.stdout
    assert read_metrics(tmp_path / 'runs' / 'mine' / 'metrics.jsonl')[-1]['step'] == 4
    assert result.stderr == ''

    (tmp_path / 'mine.py').write_text(
        (tmp_path / 'mine.py').read_text().replace('num_steps', 'num_step')
    )
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 2 and 'Did you mean "num_steps"' in result.stderr
    assert result.stderr.count('\n') == 1


def test_a_terminal_gets_a_bar_with_loss_speed_and_time_left(data_dir, tmp_path):
    flags = ['--config=configs/digits.py', f'--workdir={tmp_path}', f'--config.data.dir={data_dir}']
    terminal, other_end = pty.openpty()
    fcntl.ioctl(other_end, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 100, 0, 0))
    process = subprocess.Popen(
        [sys.executable, 'train.py', *flags, *TINY, '--config.num_steps=60'],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=other_end,
        env=os.environ | {'XLA_FLAGS': ''},
    )
    os.close(other_end)
    shown = ''
    try:
        while chunk := os.read(terminal, 10_000):
            shown += chunk.decode(errors='replace')
    except OSError:  # the other end was closed
        pass
    assert process.wait() == 0, shown
    assert 'loss ' in shown and 'images/s' in shown and ' left' in shown and '60/60' in shown


def test_help_explains():
    result = train_py('--help')
    assert result.returncode in (0, 1)  # absl's own status for --help
    assert 'python train.py --config=configs/digits.py' in result.stdout
    assert '--workdir' in result.stdout
