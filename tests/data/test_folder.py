import hashlib
import os
import re

import numpy as np
import pytest
from PIL import Image, features

from vit_jax.data.preprocess import Preprocessing
from vit_jax.data.sources import open_source, open_split
from vit_jax.errors import InputError

SMALL = Preprocessing((4, 4), 3, (0.5,), (0.5,))


def save(path, colour, mode='RGB'):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (6, 5), colour).save(path)


@pytest.fixture
def split_folder(tmp_path):
    """Two classes; every picture has its own colour."""
    for i in range(5):
        save(tmp_path / 'train' / 'zebra' / f'{i}.png', (200, i, 0))
        save(tmp_path / 'train' / 'ape' / f'{i}.PNG', (100, i, 0))
    save(tmp_path / 'test' / 'zebra' / 'a.webp', (200, 50, 0))
    (tmp_path / 'train' / 'ape' / 'notes.txt').write_text('no picture')
    (tmp_path / '.git').mkdir()
    return tmp_path


def test_folder_names_are_the_classes_and_splits(split_folder):
    source = open_source(f'folder:{split_folder}')
    assert source.class_names == ['ape', 'zebra'] and source.channels == 3
    train = open_split(source, 'train', SMALL)
    assert train.images.shape == (10, 4, 4, 3) and train.images.dtype == np.uint8
    np.testing.assert_array_equal(train.labels, [0] * 5 + [1] * 5)
    np.testing.assert_array_equal(train.images[:, 0, 0, 0], [100] * 5 + [200] * 5)
    np.testing.assert_array_equal(train.images[:, 0, 0, 1], [*range(5), *range(5)])
    test = open_split(source, 'test', SMALL)
    np.testing.assert_array_equal(test.labels, [1])
    halves = [open_split(source, f'train[{part}]+test[:1]', SMALL) for part in ('50%:', ':50%')]
    assert [half.num_examples for half in halves] == [6, 6]
    seen = [image.tobytes() for half in halves for image in half.images[:-1]]
    assert len({*seen, *(image.tobytes() for image in train.images)}) == 10


def test_without_splits_a_hash_reserves_a_tenth_for_testing(tmp_path):
    names = [f'{i:03}.png' for i in range(200)]
    for name in names:
        save(tmp_path / 'a' / 'ape' / name, (int(name[:3]), 0, 0))
    source = open_source(f'folder:{tmp_path / "a"}')
    train, test = (open_split(source, split, SMALL) for split in ('train', 'test'))
    reds = [set(examples.images[:, 0, 0, 0]) for examples in (train, test)]
    assert not reds[0] & reds[1] and len(reds[0] | reds[1]) == 200
    assert 10 <= len(reds[1]) <= 33  # 20 ± 3 standard deviations
    # In another folder and with more pictures, each stays in its split.
    (tmp_path / 'a').rename(tmp_path / 'b')
    save(tmp_path / 'b' / 'ape' / 'more.png', (255, 255, 0))
    again = open_split(open_source(f'folder:{tmp_path / "b"}'), 'test', SMALL)
    assert reds[1] <= set(again.images[:, 0, 0, 0]) <= reds[1] | {255}


def test_other_colour_modes_become_rgb(tmp_path):
    for i, (mode, colour) in enumerate(
        [('L', 7), ('CMYK', (0, 0, 0, 0)), ('P', 0), ('1', 1), ('LA', (9, 255))]
    ):
        ending = 'jpg' if mode == 'CMYK' else 'png'
        save(tmp_path / 'train' / 'ape' / f'{i}.{ending}', colour, mode)
    images = open_split(open_source(f'folder:{tmp_path}'), 'train', SMALL).images
    expected = [(7, 7, 7), (255, 255, 255), (0, 0, 0), (255, 255, 255), (9, 9, 9)]
    np.testing.assert_array_equal(images[:, 0, 0], expected)


def test_invalid_folders_and_splits_raise(split_folder, tmp_path):
    for source, message in (
        (f'folder:{tmp_path / "nowhere"}', 'no such folder'),
        ('folder:', "expected 'tfds:NAME', such as tfds:mnist, or 'folder:PATH'"),
        (f'folder:{split_folder / "train" / "ape"}', 'expected a folder for each class'),
    ):
        with pytest.raises(InputError, match=message):
            open_source(source)
    source = open_source(f'folder:{split_folder}')
    for split in ('validation', 'train[', 'train[20:]', 'all[:80%]'):
        with pytest.raises(InputError, match='the splits test, train, a slice of one, or all') as e:
            source.open(split)
        assert '\n' not in str(e.value)
    (split_folder / 'test' / 'yak').mkdir()
    with pytest.raises(InputError, match=r'yak: expected pictures .* got none'):
        open_source(f'folder:{split_folder}')
    save(split_folder / 'test' / 'yak' / 'a.png', 0)
    with pytest.raises(InputError, match="expected the classes of train, got 'yak' in test"):
        open_source(f'folder:{split_folder}')


def test_every_format_is_read_and_other_files_are_counted(tmp_path):
    endings = ['bmp', 'gif', 'jp2', 'jfif', 'PGM', 'tif', 'tiff', 'png', 'webp']
    endings += ['avif'] if features.check('avif') else []
    for i, ending in enumerate(endings):
        save(tmp_path / 'train' / 'ape' / f'{i}.{ending}', (9, 9, 9))
    for name in ('a.txt', 'b.TXT', 'c.heic', 'LICENSE', '.DS_Store', '._0.png', 'Thumbs.db'):
        (tmp_path / 'train' / 'ape' / name).write_text('no picture')
    save(tmp_path / 'train' / 'outside.png', 0)
    save(tmp_path / 'train' / 'ape' / 'young' / 'inside.png', 0)
    source = open_source(f'folder:{tmp_path}')
    assert source.notes[:-1] == [
        f'{tmp_path}/train: 4 files left out: .heic, .txt, no ending',
        f'{tmp_path}/train: 1 picture outside the class folders left out',
        f'{tmp_path}/train: 1 folder inside class folders left out: {tmp_path}/train/ape/young',
    ]
    examples = open_split(source, 'train', SMALL)
    assert examples.num_examples == len(endings)
    assert np.abs(examples.images.astype(int) - 9).max() <= 2


@pytest.mark.parametrize(
    'files, message',
    [
        (['pets/train/ape/a.png'], 'or give folder:pets if that is the data set'),
        (['pets/ape/a.png'], 'or give folder:pets if that is the data set'),
        (['data/pets/ape/a.png'], 'or give folder:data/pets if that'),
        (
            ['test/ape/a.png'],
            r'^\.: expected the splits train and test, got test; name the folder to train on '
            'train, or evaluate on folder:test with split all',
        ),
        (['Training/ape/a.png', 'val/ape/a.png'], 'name the folder to train on train'),
        (
            ['ape/a.png', 'yak/old/a.png'],
            'yak: expected pictures directly in this class folder, got yak/old/a.png; move',
        ),
        (['train/ape/images/a.png'], 'got train/ape/images/a.png; move them up$'),
        (['a.png'], 'for each class, got ./a.png; move the pictures of each class into a folder'),
        (['ape/a.heic'], r'ape: expected pictures .*, got only .heic; convert them, or remove'),
        (['ape/a/b/c'], r'ape: expected pictures .*, got none; add some, or remove the folder'),
    ],
)
def test_each_wrong_layout_has_its_own_advice(files, message, tmp_path, monkeypatch):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b'')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as error:
        open_source('folder:.')
    assert re.search(message, str(error.value)) and '\n' not in str(error.value)


def test_all_is_every_split_together(split_folder):
    source = open_source(f'folder:{split_folder}')
    every = open_split(source, 'all', SMALL)
    assert np.bincount(every.labels).tolist() == [5, 6]
    parts = [open_split(source, split, SMALL) for split in ('test', 'train')]
    np.testing.assert_array_equal(every.images, np.concatenate([part.images for part in parts]))
    save(split_folder / 'all' / 'ape' / 'a.png', 0)
    with pytest.raises(InputError, match='rename this split; all stands for all of them'):
        open_source(f'folder:{split_folder}')


def test_small_folders_have_pictures_to_train_on_and_to_test(tmp_path):
    """Names are chosen by their hashes: 'low' ones belong to test, 'high' ones to train."""
    low, high = (
        sorted((name for name in map('{}.png'.format, range(200)) if chosen(name)), key=digest)
        for chosen in (lambda name: digest(name)[0] < 26, lambda name: digest(name)[0] >= 26)
    )

    def splits(names):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        for name in names:
            save(folder / 'ape' / name, 0)
        source = open_source(f'folder:{folder}')
        opened = [source.open(split) for split in ('train', 'test')]
        return [{os.path.basename(x.name(i)) for i in range(len(x))} for x in opened]

    assert splits(high[:3]) == [set(high[1:3]), {high[0]}]
    assert splits([*high[:3], high[9]]) == [{*high[1:3], high[9]}, {high[0]}]  # it grows
    assert splits(low[:3]) == [{low[2]}, set(low[:2])]
    assert splits([*high[:3], *low[:2]]) == [set(high[:3]), set(low[:2])]  # by the hash alone
    with pytest.raises(InputError, match="split 'test' has no pictures"):
        splits(high[:1])


def digest(name):
    return hashlib.sha256(f'ape/{name}'.encode()).digest()


def test_tilde_expands_to_the_home_folder(split_folder, monkeypatch):
    monkeypatch.setenv('HOME', str(split_folder.parent))
    assert open_source(f'folder:~/{split_folder.name}').class_names == ['ape', 'zebra']


def test_slices_hold_all_classes(tmp_path):
    """As in TFDS: a slice is a random part, the same wherever the folder is."""
    for name in ('ape', 'yak'):
        for i in range(100):
            save(tmp_path / 'train' / name / f'{i:03}.png', (i, 0, 0))
    source = open_source(f'folder:{tmp_path}')
    first, rest = (open_split(source, f'train[{part}]', SMALL) for part in (':50%', '50%:'))
    for part in (first, rest):
        assert 25 < np.bincount(part.labels, minlength=2)[0] < 75  # 5 standard deviations
        assert sorted(part.labels) == part.labels.tolist()
    both = zip([*first.labels, *rest.labels], [*first.images, *rest.images], strict=True)
    assert len({(label, image.tobytes()) for label, image in both}) == 200


def test_unprintable_class_names_raise(tmp_path):
    save(tmp_path / 'train' / 'a\nb' / '0.png', 0)
    with pytest.raises(InputError, match=r"expected printable class names, got 'a.nb'"):
        open_source(f'folder:{tmp_path}')
    save(tmp_path / 'other' / 'ape' / 'caf\udce9.png', 0)  # a name that is not UTF-8
    assert open_split(open_source(f'folder:{tmp_path / "other"}'), 'train+test', SMALL)


def test_one_class_alone_is_noted(tmp_path):
    save(tmp_path / 'cat' / 'a.png', (0, 0, 0))
    assert 'only one class' in open_source(f'folder:{tmp_path}').notes[-1]


def test_pipe_raises(split_folder):
    os.mkfifo(split_folder / 'train' / 'ape' / 'pipe.jpg')
    with pytest.raises(InputError, match='pipe.jpg: expected a file'):
        open_split(open_source(f'folder:{split_folder}'), 'train', SMALL)
