"""Pictures decoded during training, in threads."""

import functools
import os
import threading
import time

import jax
import numpy as np
import pytest
from pictures import NUM_EXAMPLES, small_config
from PIL import Image

import vit_jax
from vit_jax.data.batches import eval_batches, train_batches
from vit_jax.data.crop import ATTEMPTS, choose_crop
from vit_jax.data.order import EvalOrder, TrainOrder, random_uniform
from vit_jax.data.preprocess import Preprocessing
from vit_jax.data.sources import open_source, open_split
from vit_jax.data.stream import CHUNK, Stream
from vit_jax.run.report import Reporter
from vit_jax.train.trainer import train

PREPROCESSING = Preprocessing((24, 24), 3, (0.5,), (0.5,), crop_fraction=0.875)


def open_stream(photographs, split='train', min_area=0.2, **options):
    source = open_source(f'folder:{photographs}')
    options = dict(memory_gib=0.0, min_area=min_area) | options
    stream = open_split(source, split, PREPROCESSING, **options)
    assert isinstance(stream, Stream)
    return stream


def read_batches(stream, order, steps):
    with train_batches(stream, order, steps, lambda batch: batch) as batches:
        return list(batches)


def order(batch_size=8, rows=None, repeats=1, num_examples=NUM_EXAMPLES):
    return TrainOrder(num_examples, batch_size, rows or range(batch_size), 3, repeats)


def assert_same(batch, other):
    assert batch.keys() == other.keys()
    for name in batch:
        assert batch[name].dtype == other[name].dtype
        assert batch[name].tobytes() == other[name].tobytes(), name


def test_batch_holds_the_resized_crops_of_its_examples(photographs):
    """Against whole pictures decoded by Pillow and cropped to the boxes of choose_crop."""
    import cv2

    places = order(batch_size=7)
    stream = open_stream(photographs)
    split = open_source(f'folder:{photographs}').open('train')
    for step, batch in zip(range(2, 4), read_batches(stream, places, range(2, 4)), strict=True):
        for row, index in enumerate(places.examples(step)):
            record = split[int(index)]
            with Image.open(record.name) as picture:
                pixels = np.asarray(picture.convert('RGB'))
            uniform = random_uniform(2 * ATTEMPTS + 2, places.seed, step, row)
            top, left, height, width = choose_crop(uniform, *pixels.shape[:2], 0.2)
            part = pixels[top : top + height, left : left + width]
            halves = min(height, width) >= 48
            method = cv2.INTER_AREA if halves else cv2.INTER_LINEAR
            difference = np.abs(
                batch['image'][row] - cv2.resize(part, (24, 24), None, 0, 0, method).astype(float)
            )
            # A JPEG is decoded at half its resolution if that suffices.
            assert difference.max() <= 4 or (halves and difference.mean() < 15)
            assert batch['label'][row] == record.label
            assert f'/{"abc"[record.label]}/' in record.name


def test_batches_are_the_same_on_any_number_of_processes_and_from_any_step(photographs):
    expected = read_batches(open_stream(photographs), order(), range(7))
    resumed = read_batches(open_stream(photographs), order(), range(4, 7))
    for batch, other in zip(expected[4:], resumed, strict=True):
        assert_same(batch, other)
    for num_processes in (2, 4):
        share = 8 // num_processes
        parts = [
            read_batches(open_stream(photographs), order(rows=range(i, i + share)), range(7))
            for i in range(0, 8, share)
        ]
        for batch, shares in zip(expected, zip(*parts, strict=True), strict=True):
            joined = {name: np.concatenate([x[name] for x in shares]) for name in batch}
            assert_same(batch, joined)


def test_process_reads_only_its_rows(photographs, monkeypatch):
    read = []
    stream = open_stream(photographs)
    split = stream._reader._split
    original = type(split).__getitem__

    def spy(self, index):
        read.append(index)
        return original(self, index)

    monkeypatch.setattr(type(split), '__getitem__', spy)
    places = order(rows=range(4, 8))
    read_batches(stream, places, range(2))
    assert sorted(read) == sorted([*places.examples(0), *places.examples(1)])


def test_crops_differ_between_epochs(photographs):
    places = order(batch_size=NUM_EXAMPLES)
    first, second = read_batches(open_stream(photographs), places, range(2))
    ranks = [np.argsort(places.examples(step)) for step in (0, 1)]
    same = [(first['image'][i] == second['image'][j]).all() for i, j in zip(*ranks, strict=True)]
    assert not any(same)
    np.testing.assert_array_equal(first['label'][ranks[0]], second['label'][ranks[1]])


def test_repeats_are_cropped_independently(photographs):
    (batch,) = read_batches(open_stream(photographs), order(batch_size=12, repeats=3), range(1))
    np.testing.assert_array_equal(batch['label'].reshape(3, 4)[0], batch['label'].reshape(3, 4)[2])
    images = batch['image'].reshape(3, 4, -1)
    assert (images[0] != images[1]).any(-1).all() and (images[1] != images[2]).any(-1).all()


def test_uncropped_stream_equals_memory(photographs):
    """Evaluation takes no random crops, so it always equals memory."""
    source = open_source(f'folder:{photographs}')
    memory = open_split(source, 'train', PREPROCESSING)
    (streamed,) = read_batches(open_stream(photographs, min_area=0.0), order(), range(1))
    (gathered,) = read_batches(memory, order(), range(1))
    assert_same(streamed, gathered)
    places = EvalOrder(NUM_EXAMPLES, 8, range(8))
    with (
        eval_batches(open_stream(photographs), places, lambda batch: batch) as streamed,
        eval_batches(memory, places, lambda batch: batch) as gathered,
    ):
        for batch, other in zip(streamed, gathered, strict=True):
            counts = batch['mask'] == 1
            assert_same(
                {name: x[counts] for name, x in batch.items()},
                {name: x[counts] for name, x in other.items()},
            )
            np.testing.assert_array_equal(batch['mask'], other['mask'])


@pytest.mark.parametrize('batch_size', [1, CHUNK + 1, 3 * CHUNK, 64])
def test_any_batch_size_is_assembled_from_chunks(photographs, batch_size):
    (batch,) = read_batches(open_stream(photographs), order(batch_size=batch_size), range(5, 6))
    assert batch['position'].tolist() == list(range(batch_size))
    labels = [record_label(photographs, i) for i in order(batch_size=batch_size).examples(5)]
    assert batch['label'].tolist() == labels


@functools.cache
def train_split(photographs):
    return open_source(f'folder:{photographs}').open('train')


def record_label(photographs, index):
    return train_split(photographs)[int(index)].label


def test_threads_end_with_the_iteration(photographs):
    before = threading.active_count()
    with train_batches(open_stream(photographs), order(), range(10**6), lambda x: x) as batches:
        next(batches)
        assert threading.active_count() > before
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_prefetching_is_bounded(photographs, monkeypatch):
    """However long no batch is taken."""
    stream = open_stream(photographs)
    reads = []
    read = stream._reader.read
    monkeypatch.setattr(stream._reader, 'read', lambda *x: (reads.append(1), read(*x))[1])
    with train_batches(stream, order(batch_size=16), range(10**6), lambda x: x) as batches:
        next(batches)
        last = -1
        while last < len(reads):  # until reading stops
            last = len(reads)
            time.sleep(0.5)
    threads = len(os.sched_getaffinity(0))
    assert 3 * 16 < len(reads) <= 6 * 16 + 2 * CHUNK * threads


def test_interrupted_streamed_run_ends_with_the_same_parameters(photographs, tmp_path, monkeypatch):
    config = small_config(photographs)
    train(config, str(tmp_path / 'whole'))
    report = Reporter.train

    def interrupt(self, step, metrics):
        if step == 5:
            raise KeyboardInterrupt
        report(self, step, metrics)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Reporter, 'train', interrupt)
        train(config, str(tmp_path / 'interrupted'))
    last = train(config, str(tmp_path / 'interrupted'))
    params = [vit_jax.load_weights(tmp_path / name)[1] for name in ('interrupted', 'whole')]
    jax.tree.map(np.testing.assert_array_equal, *params)
    assert last['step'] == 6
