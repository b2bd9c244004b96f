"""train.py as a user runs it: wrong input gives one line of error and exit status 2."""

import fcntl
import os
import pty
import struct
import subprocess
import termios

import processes
import pytest
from processes import train_py

import vit_jax

TINY = ['--config.num_steps=4', '--config.optim.warmup_steps=1', '--config.model.depth=1']


@pytest.fixture
def flags(data_dir, tmp_path):
    return ['--config=configs/digits.py', f'--workdir={tmp_path}', f'--config.data.dir={data_dir}']


@pytest.mark.parametrize(
    'wrong, message',
    [
        (
            ['--config.optim.learnin_rate=1'],
            'no such option: optim.learnin_rate; did you mean optim.learning_rate?',
        ),
        (['--config.optm.name=sgd'], 'did you mean optim.name?'),
        (['--config=digits'], 'Expected one config, '),
        (['--config.batch_size=many'], "batch_size: expected a whole number, got 'many'"),
        (['--workdri=x'], "No such option '--workdri'. Did you mean '--workdir'?"),
        (['digits'], 'Expected one config, '),
        (['--config.model.patch_size=3'], 'patch_size must divide image_size'),
        (['--config.batch_size=12'], 'multiple of the 8 devices, got 12'),
        (['--config.data.source=tfds:mnsit'], 'did you mean tfds:mnist'),
        (['--config.parallel.mode=pjit'], "'jit' or 'pmap'"),
        (['--config.optim.name=adam'], 'expected one of adamw, sgd'),
        (['--config.optim.schedule=wsd'], 'expected one of cosine, linear, rsqrt, constant'),
        (['--config.optim.cooldown_steps=9'], "expected None with optim.schedule='cosine'"),
        (['--config.optim.cooldown_epochs=-1'], 'expected a number in [0, inf), got -1'),
        (['--config.data.test_split=validation'], 'expected one of the splits test, train'),
        (['--workdir=/dev/null/run'], 'expected a writable folder'),
        (['--config.num_steps=0'], 'num_steps: expected a number in [1, 2147483648), got 0'),
        (['--config.model.dtype=int8'], 'expected dtype'),
        (['--config.data.image_size=(8,)'], 'expected a size in pixels'),
        (['--config.data.mean=(0.1,0.2)'], 'data.mean'),
        (['--config.data.repeats=3'], 'expected a divisor of batch_size=128, got 3'),
        (['--config.data.crop_fraction=2'], 'data.crop_fraction: expected 0 to 1, got 2.0'),
        (['--config.augment.policy=all'], 'expected one of none, randaugment, autoaugment'),
        (['--config.augment.color_jitter=(0.4,)'], 'expected (brightness, contrast, saturation'),
        (['--config.augment.color_jitter=(0,0,0,"a")'], 'expected (brightness, contrast'),
    ],
)
def test_wrong_input_exits_with_one_line_and_status_2(wrong, message, flags, tmp_path, capsys):
    assert train_py(*flags, *wrong) == 2
    output, errors = capsys.readouterr()
    assert message in errors and errors.count('\n') == 1
    assert output == ''
    assert not list(tmp_path.glob('checkpoints/*'))


def test_wrong_input_exits_with_one_line_as_a_process_too(flags):
    """Whatever jax, TFDS and absl print counts too."""
    output, errors = processes.run('train.py', *flags, '--config.batch_size=0', status=2)
    assert output == '' and errors.count('\n') == 1
    assert errors.startswith('train.py: batch_size: expected a number in [1, 2147483648), got 0')


def test_non_finite_loss_exits_with_one_line_and_status_1(flags, capsys):
    assert train_py(*flags, *TINY, '--config.optim.learning_rate=1e38') == 1
    errors = capsys.readouterr().err
    assert errors.count('\n') == 1
    assert errors.startswith('train.py: step ') and 'was not saved' in errors


def test_terminal_shows_a_bar_with_loss_speed_and_time_left(flags):
    terminal, other_end = pty.openpty()
    fcntl.ioctl(other_end, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 100, 0, 0))
    process = processes.start(
        'train.py',
        *flags,
        *TINY,
        '--config.num_steps=60',
        stdout=subprocess.DEVNULL,
        stderr=other_end,
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


def test_help_and_errors_name_the_recipes(capsys):
    recipes = ', '.join(sorted(x.stem for x in (processes.ROOT / 'configs').glob('*.py')))
    assert train_py('--help') == 0
    output = capsys.readouterr().out
    assert 'CONFIG' in output and '--workdir' in output
    assert all(name in output for name in recipes.split(', '))
    assert train_py('--config.num_steps=3') == 2
    error = capsys.readouterr().err
    assert f'Expected one config, {recipes} or a file of your own, got none.' in error
    assert train_py('digits', '--config.num_step=3') == 2
    assert 'did you mean num_steps?' in capsys.readouterr().err


@pytest.mark.slow
def test_photographs_config_trains(photographs, tmp_path, capsys):
    """S/16 on crops of the original pictures; smaller and shorter here."""
    small = ['model.dim=48', 'model.depth=1', 'data.image_size=32', 'batch_size=8', 'num_steps=2']
    status = train_py(
        '--config=configs/photographs.py',
        f'--workdir={tmp_path}',
        f'--config.data.source=folder:{photographs}',
        '--config.optim.warmup_steps=1',
        *(f'--config.{option}' for option in small),
    )
    output, errors = capsys.readouterr()
    assert status == 0, errors
    assert '21 pictures as a stream to train on' in output
    model, _ = vit_jax.load_weights(tmp_path)
    assert (model.dim, model.depth, model.patch_size, model.qkv_bias) == (48, 1, 16, True)
