import tempfile

import jax
import numpy as np
import processes
import pytest
from PIL import Image

from vit_jax.__main__ import main
from vit_jax.errors import InputError
from vit_jax.train import build
from vit_jax.train.trainer import train
from vit_jax.use.contact_sheet import CELL, LINE, MARGIN, contact_sheet
from vit_jax.use.preview import describe_target, preview

MIXED = {'augment.mixup_alpha': 0.8, 'augment.cutmix_alpha': 1.0}


def test_sheet_shows_what_a_training_step_gets(digits_config, monkeypatch):
    """The augmented images and targets, recorded during a real step."""
    digits_config.update_from_flattened_dict(MIXED)
    digits_config.augment.label_smoothing = 0.0
    digits_config.num_steps, digits_config.optim.warmup_steps = 2, 1
    seen = []
    create = build.create_augment

    def spying(*args):
        augment = create(*args)

        def spy(images, labels, keys):
            result = augment(images, labels, keys)
            jax.debug.callback(lambda *x: seen.append([np.asarray(y) for y in x]), *result)
            return result

        return spy

    digits_config.batch_size = 8
    digits_config.data.train_split = 'train'
    with monkeypatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(build, 'create_augment', spying)
        train(digits_config, folder)
    jax.effects_barrier()
    drawn = []
    monkeypatch.setattr(
        'vit_jax.use.preview.contact_sheet', lambda *x: drawn.append(x) or Image.new('L', (1, 1))
    )
    preview(digits_config, step=2, rows=2, columns=4)
    images, captions, columns, title = drawn[0]
    assert len(seen) == 2
    np.testing.assert_array_equal(images, seen[1][0])
    names = list('0123456789')
    assert captions == [describe_target(target, names) for target in seen[1][1]] and columns == 4
    assert title == 'tfds:digits, train: step 2, 8 of 8 images'


def test_pictures_and_captions_are_in_their_places():
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * 40 + np.zeros((8, 12, 3), np.uint8)
    captions = [['a'], ['b'], ['c', 'd'], [], [], []]
    sheet = np.asarray(contact_sheet(images, captions, 4, 'title'))
    scale = -(-CELL // 8)
    cell = 12 * scale + MARGIN, 8 * scale + 2 * LINE + MARGIN
    assert sheet.shape == (2 * cell[1] + MARGIN + 2 * LINE, 4 * cell[0] + MARGIN, 3)
    for i in range(6):
        left, top = i % 4 * cell[0] + MARGIN, i // 4 * cell[1] + MARGIN + 2 * LINE
        picture = sheet[top : top + 8 * scale, left : left + 12 * scale]
        assert (picture == 40 * i).all()
        text = sheet[top + 8 * scale : top + 8 * scale + LINE, left : left + 12 * scale]
        assert (text < 128).any() == (i < 3)  # only the first three have one


def test_targets_are_described_by_class_names():
    names = ['ape', 'yak', 'zebra']
    assert describe_target(np.float32([0, 1, 0]), names) == ['yak']
    assert describe_target(np.float32([0.3, 0, 0.7]), names) == ['70% zebra', '30% ape']
    assert describe_target(np.float32([0.001, 0, 0.999]), names) == ['zebra']
    assert describe_target(np.float32([1, 1, 1]), names) == names


def test_command_writes_a_picture(data_dir, tmp_path):
    command = ['-m', 'vit_jax', 'preview', 'configs/digits.py', '-o', tmp_path / 'sheet.png']
    flags = [f'--config.data.dir={data_dir}', '--config.augment.policy=trivialaugment']
    assert processes.run(*command, *flags, '--rows', '2') == ('', '')
    with Image.open(tmp_path / 'sheet.png') as sheet:
        assert sheet.size == (8 * (CELL + MARGIN) + MARGIN, 2 * (CELL + LINE + MARGIN) + 38)


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['configs/none.py'], 'configs/none.py'),
        (['configs/digits.py', '--config.augment.polcy=none'], 'did you mean augment.policy?'),
        (['configs/digits.py', '--config.augment.policy=all'], 'augment.policy: expected one of'),
        (
            ['configs/digits.py', '--config.augment.mix_prob=2'],
            'augment.mix_prob: expected a number in [0, 1], got 2.0',
        ),
        (['configs/digits.py', '--rows', '0'], 'expected step, rows and columns of at least 1'),
        (['configs/digits.py', 'more'], 'Expected one config, '),
        (['configs/finetune.py'], 'init.weights: expected a run directory'),
    ],
)
def test_wrong_input_exits_with_one_line_and_status_2(
    arguments, message, data_dir, tmp_path, capsys
):
    output = str(tmp_path / 'sheet.png')
    data = f'--config.data.dir={data_dir}'
    source = '--config.data.source=tfds:digits'
    assert main(['preview', *arguments, data, source, '-o', output]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count('\n') == 1


def test_unknown_extension_exits_with_status_2(data_dir, tmp_path, capsys):
    command = ['preview', 'configs/digits.py', f'--config.data.dir={data_dir}', '-o']
    assert main([*command, str(tmp_path / 'sheet.doc')]) == 2
    assert 'expected a picture file such as picture.png' in capsys.readouterr().err


def test_other_commands_reject_config_flags(capsys):
    assert main(['summary', 'Ti/16', '--config.seed=1']) == 2
    assert "No such option '--config.seed'" in capsys.readouterr().err


def test_preview_names_a_bad_example(digits_config, tmp_path):
    digits_config.data.source = f'folder:{tmp_path}'
    digits_config.data.train_split = 'train'
    (tmp_path / 'train' / 'ape').mkdir(parents=True)
    (tmp_path / 'train' / 'ape' / 'a.jpg').write_text('no picture')
    with pytest.raises(InputError, match='a.jpg: expected a picture'):
        preview(digits_config)
