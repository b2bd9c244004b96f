import io
import itertools
import os
import sys

import pytest

from vit_jax.errors import InputError
from vit_jax.use.pictures import find_pictures

FILES = (
    'b.JPG',
    'a.avif',
    'notes.txt',
    '.hidden.png',
    '.git/a.png',
    'yak/2.png',
    'yak/10.png',
    'ape/young/1.tiff',
    '[1].png',
    'text/a.txt',
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    for name in FILES:
        (tmp_path / 'in' / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'in' / name).write_bytes(b'')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    'paths, expected',
    [
        (['in'], ['[1].png', 'a.avif', 'b.JPG', 'ape/young/1.tiff', 'yak/10.png', 'yak/2.png']),
        (['in/yak', 'in/notes.txt'], ['yak/10.png', 'yak/2.png', 'notes.txt']),
        (['in/*'], ['[1].png', 'a.avif', 'b.JPG']),
        (['in/**/[12]*.*'], ['ape/young/1.tiff', 'yak/10.png', 'yak/2.png']),
        (['in/[1].png'], ['[1].png']),
    ],
)
def test_files_folders_and_patterns_are_expanded_in_order(paths, expected):
    assert list(find_pictures(paths)) == [f'in/{name}' for name in expected]


def test_standard_input_names_files_one_a_line(monkeypatch):
    lines = io.BytesIO(b'with space.png\n\n[1].png\r\ncaf\xe9.png')
    monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(lines))
    names = ['with space.png', '[1].png', os.fsdecode(b'caf\xe9.png')]
    assert list(find_pictures(['in/yak/2.png', '-'])) == ['in/yak/2.png', *names]


@pytest.mark.parametrize(
    'path, message',
    [
        ('nowhere', '^nowhere: no such file or folder$'),
        ('', '^: no such file or folder$'),
        ('in/text', 'in/text: expected pictures .* got none'),
        ('in/*.doc', r'in/\*.doc: expected a pattern of pictures, but none matches'),
    ],
)
def test_nothing_found_raises_before_any_picture_is_read(path, message):
    with pytest.raises(InputError, match=message):
        find_pictures(['in', path])


def test_folders_are_listed_when_their_turn_comes(folder):
    found = find_pictures(['in'])
    first = list(itertools.islice(found, 2))
    (folder / 'in' / 'yak' / '11.png').write_bytes(b'')
    assert 'in/yak/11.png' in [*first, *found]


def test_links_that_lead_in_circles_are_followed_once(folder):
    (folder / 'in' / 'yak' / 'again').symlink_to(folder / 'in')
    found = list(find_pictures(['in']))
    assert len(found) == len(set(found)) == 6
