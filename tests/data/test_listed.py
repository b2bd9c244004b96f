import json
import re

import numpy as np
import pytest
from PIL import Image

from vit_jax.data.order import EvalOrder, TrainOrder
from vit_jax.data.preprocess import Preprocessing
from vit_jax.data.sources import open_source, open_split
from vit_jax.errors import InputError

SMALL = Preprocessing((4, 4), 3, (0.5,), (0.5,))
MEMORY = pytest.mark.parametrize('memory_gib', [0.0, 1.0], ids=['stream', 'memory'])


@pytest.fixture
def folder(tmp_path):
    """Pictures whose red is their number."""
    (tmp_path / 'images').mkdir()
    for i in range(6):
        Image.new('RGB', (6, 5), (i, 0, 0)).save(tmp_path / 'images' / f'{i}.png')
    return tmp_path


def write_csv(folder, text):
    path = folder / 'list.csv'
    path.write_text(text)
    return f'csv:{path}'


def write_jsonl(folder, rows):
    path = folder / 'list.jsonl'
    path.write_text('\n'.join(map(json.dumps, rows)))
    return f'jsonl:{path}'


def reds(images):
    return images[:, 0, 0, 0].tolist()


@MEMORY
def test_both_formats_hold_the_same_multi_label_examples(folder, memory_gib):
    listed = [('images/2.png', ['dog', 'cat'], 'train'), ('images/1.png', [], 'train')]
    listed += [(str(folder / 'images' / '5.png'), ['yak'], 'train'), ('images/0.png', [], 'val')]
    rows = [f'{file},{"|".join(labels)},{split}' for file, labels, split in listed]
    for source in (
        write_csv(folder, '\ufefffile, labels, split\n' + '\n'.join(rows)),
        write_jsonl(
            folder, [dict(zip(('file', 'labels', 'split'), x, strict=True)) for x in listed]
        ),
    ):
        opened = open_source(source)
        assert opened.class_names == ['cat', 'dog', 'yak'] and opened.multi_label
        assert opened.notes == [f'{source}: multi-label, with 0.75 classes a picture on average']
        train = open_split(opened, 'train', SMALL, memory_gib=memory_gib)
        batch = train.gather(np.arange(3))
        assert reds(batch['image']) == [2, 1, 5]  # the list's order
        assert batch['label'].tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
        assert batch['label'].dtype == np.uint8
        np.testing.assert_array_equal(train.labels, batch['label'])
        assert open_split(opened, 'all', SMALL).num_examples == 4


@MEMORY
def test_batches_of_multi_label_examples(folder, memory_gib):
    source = write_csv(folder, 'file,labels\n' + ''.join(f'images/{i}.png,{i}\n' for i in range(6)))
    examples = open_split(open_source(source), 'all', SMALL, memory_gib=memory_gib)
    order = TrainOrder(6, 4, range(4), seed=0)
    (batch,) = examples.train_batches(order, range(2, 3))
    assert batch['label'].argmax(1).tolist() == reds(batch['image'])
    assert batch['label'].dtype == np.uint8 and (batch['label'].sum(1) == 1).all()
    first, last = examples.eval_batches(EvalOrder(6, 4, range(4)))
    assert first['label'].argmax(1).tolist() == reds(first['image'])
    assert last['label'].shape == (4, 6) and last['mask'].tolist() == [1, 1, 0, 0]


def test_column_label_makes_single_label_data(folder):
    for source in (
        write_csv(folder, 'file,width,label\nimages/1.png,6,"yak, long"\nimages/0.png,6,ape'),
        write_jsonl(
            folder,
            [
                {'file': 'images/1.png', 'label': 'yak, long', 'width': 6},
                {'file': 'images/0.png', 'label': 'ape'},
            ],
        ),
    ):
        opened = open_source(source)
        assert opened.class_names == ['ape', 'yak, long'] and not opened.multi_label
        assert opened.notes == [f'{source}: columns left out: width']
        examples = open_split(opened, 'all', SMALL)
        assert sorted(zip(reds(examples.images), examples.labels.tolist(), strict=True)) == [
            (0, 0),
            (1, 1),
        ]
        assert examples.labels.dtype == np.int32


def test_without_splits_a_hash_of_each_file_reserves_a_tenth_for_testing(tmp_path):
    rows = [f'{i}.png,{"|".join("ab"[: i % 3])}' for i in range(400)]
    test = open_source(write_csv(tmp_path, 'file,labels\n' + '\n'.join(rows))).open('test')
    files = {test.name(i) for i in range(len(test))}
    assert 20 <= len(files) <= 60  # 40 ± 3 standard deviations
    more = [f'{i}.png,c' for i in range(400, 500)]
    grown = open_source(write_csv(tmp_path, 'file,labels\n' + '\n'.join(more + rows))).open('test')
    known = {f'{tmp_path / row.split(",")[0]}' for row in rows}
    assert {grown.name(i) for i in range(len(grown))} & known == files
    few = open_source(write_csv(tmp_path, 'file,labels\n1.png,a|b\n2.png,a\n3.png,b|c'))
    assert [len(few.open(split)) for split in ('train', 'test')] == [2, 1]


@MEMORY
def test_missing_and_damaged_pictures_are_named_or_skipped(folder, memory_gib):
    (folder / 'images' / '1.png').write_bytes(b'no picture')
    files = ['images/0.png', 'images/1.png', 'images/nowhere.png']
    text = 'file,label,split\n' + ''.join(f'{file},a,train\n' for file in files)
    source = open_source(write_csv(folder, text))
    options = {'memory_gib': memory_gib}
    order = EvalOrder(3, 3, range(3))
    for file in files[1:]:
        with pytest.raises(InputError, match=re.escape(str(folder / file))):
            examples = open_split(source, 'train', SMALL, **options)
            examples.gather(np.array([files.index(file)]))
        (folder / file).write_bytes((folder / files[0]).read_bytes())
    for file in files[1:]:
        (folder / file).unlink()
    examples = open_split(source, 'train', SMALL, on_error='skip', **options)
    (batch,) = examples.eval_batches(EvalOrder(examples.num_examples, 3, order.rows))
    assert batch['mask'].sum() == 1 and list(examples.skipped) == [1, 2]


@pytest.mark.parametrize(
    'text, message',
    [
        ('', 'expected pictures, got an empty list'),
        ('file,labels\n', 'expected pictures, got an empty list'),
        ('file,labels\na.png,\n', 'expected labels, but no picture has any'),
        ('path,labels\na.png,x', 'line 2: expected file and either labels or label, got path, la'),
        ('file,label,labels\na.png,x,y', 'line 2: expected file and either labels or label'),
        ('file,label\na.png,x\nb.png,', "line 3: expected a label as printable text, got ''"),
        ('file,label\na.png,x|y', "line 2: expected one label, got 'x|y'; name the column labels"),
        ('file,labels\na.png,x||y', "line 2: expected a label as printable text, got ''"),
        ('file,labels\na.png,x\n\n,y', "line 4: expected a file as printable text, got ''"),
        ('file,labels\na.png,x\nb.png,y,z', 'line 3: expected 2 cells, as in the header'),
        ('file,labels,split\na.png,x', 'line 2: expected 3 cells, as in the header'),
        ('file,labels,split\na.png,x,', "line 2: expected a split as printable text, got ''"),
        ('file,label,split\na.png,x,all', 'line 2: expected a split other than all'),
        ('file,labels\na.png,x\na.png,y', "line 3: 'a.png' is in line 2 already; give all labels"),
        ('file,labels\na.png,"x', 'line 2: expected CSV: unexpected end of data'),
    ],
)
def test_wrong_lines_of_a_csv_file_are_named(text, message, tmp_path):
    source = write_csv(tmp_path, text)
    with pytest.raises(InputError, match=re.escape(f'{source}: {message}')) as error:
        open_source(source)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    'line, message',
    [
        ('{"file": "b.png"', 'expected a JSON object such as {"file"'),
        ('["b.png"]', 'expected a JSON object such as {"file"'),
        ('{"file": "b.png", "labels": "x"}', "expected a list of labels, got 'x'"),
        ('{"file": "b.png", "labels": [1]}', 'expected a label as printable text, got 1'),
        ('{"file": 7, "labels": []}', 'expected a file as printable text, got 7'),
        ('{"file": "b.png", "label": "x"}', 'expected file, labels as before, got file, label'),
        ('{"file": "b", "labels": [], "split": "val"}', 'expected file, labels as before, got'),
        ('{"file": "b.png", "labels": ["x\\ny"]}', 'expected a label as printable text'),
        ('{"file\\n": "b.png"}', 'expected file, labels as before, got nothing'),
        (
            '{"file": "b.png", "labels": ["x "]}',
            "expected a label without spaces around it, got 'x '",
        ),
    ],
)
def test_wrong_lines_of_a_json_file_are_named(line, message, tmp_path):
    (tmp_path / 'list.jsonl').write_text(f'{{"file": "a.png", "labels": ["x"]}}\n\n{line}\n')
    source = f'jsonl:{tmp_path / "list.jsonl"}'
    with pytest.raises(InputError, match=re.escape(f'{source}: line 3: {message}')) as error:
        open_source(source)
    assert '\n' not in str(error.value)


def test_spaces_around_cells_say_nothing(folder):
    text = 'file ,label, split\nimages/0.png , cat ,train\nimages/1.png,cat, test \n'
    source = open_source(write_csv(folder, text))
    assert source.class_names == ['cat'] and sorted(source.splits) == ['test', 'train']


@pytest.mark.parametrize('split', ['fold 1', 'v1.0', 'train[:9]'])
def test_splits_are_named_so_that_slices_can_follow(split, folder):
    with pytest.raises(InputError, match=r'line 2: expected a split of letters, digits, _ and -'):
        open_source(write_csv(folder, f'file,label,split\nimages/0.png,cat,{split}\n'))


def test_unreadable_lists_raise(tmp_path):
    with pytest.raises(InputError, match='the list cannot be read: No such file'):
        open_source('csv:~nobody-of-this-name/list.csv')
    with pytest.raises(InputError, match='the list cannot be read: No such file'):
        open_source(f'csv:{tmp_path / "nowhere.csv"}')
    (tmp_path / 'latin.csv').write_bytes('file,label\na.png,Käse'.encode('latin-1'))
    with pytest.raises(InputError, match='expected text in UTF-8; save the list as such'):
        open_source(f'csv:{tmp_path / "latin.csv"}')
