import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vit_jax.data.balanced import BalancedOrder, create_order
from vit_jax.data.memory import InMemory
from vit_jax.data.preprocess import Preprocessing
from vit_jax.data.sources import open_source, open_split
from vit_jax.errors import InputError

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=40).map(np.int32)


def order(labels, batch_size, seed=0, repeats=1):
    rows = range(batch_size)
    return BalancedOrder(len(labels), batch_size, rows, seed, repeats, labels=labels)


@settings(deadline=None)
@given(labels=LABELS, batch_size=st.integers(1, 30), seed=st.integers(0, 2**32 - 1))
def test_each_round_has_one_example_of_each_class(labels, batch_size, seed):
    classes = np.unique(labels)
    steps = range(-(-6 * len(classes) // batch_size))
    batches = [order(labels, batch_size, seed).examples(step) for step in steps]
    sequence = labels[np.concatenate(batches)][: 6 * len(classes)]
    for round_ in sequence.reshape(6, len(classes)):
        assert sorted(round_) == classes.tolist()


@settings(deadline=None)
@given(labels=LABELS, batch_size=st.integers(1, 30))
def test_a_class_deals_out_each_example_once_a_pass(labels, batch_size):
    classes, counts = np.unique(labels, return_counts=True)
    steps = range(-(-3 * max(counts) * len(classes) // batch_size))
    batches = [order(labels, batch_size).examples(step) for step in steps]
    sequence = np.concatenate(batches)
    for label, count in zip(classes, counts, strict=True):
        members = sequence[labels[sequence] == label][: 3 * count]
        for pass_ in members.reshape(3, count):
            assert sorted(pass_) == np.flatnonzero(labels == label).tolist()


@settings(deadline=None)
@given(
    labels=LABELS,
    share=st.integers(1, 6),
    num_processes=st.sampled_from([1, 2, 4]),
    repeats=st.sampled_from([1, 2, 4]),
    steps=st.lists(st.integers(0, 30), min_size=1, max_size=5),
)
def test_a_batch_depends_on_its_step_alone(labels, share, num_processes, repeats, steps):
    """Not on the steps before, which an interrupted run has not seen, nor on the processes."""
    batch_size = 4 * share
    part = batch_size // num_processes
    parts = [
        dataclasses.replace(order(labels, batch_size, 7, repeats), rows=range(i, i + part))
        for i in range(0, batch_size, part)
    ]
    for step in steps:
        expected = order(labels, batch_size, 7, repeats).examples(step)
        np.testing.assert_array_equal(np.concatenate([x.examples(step) for x in parts]), expected)
        copies = expected.reshape(repeats, -1)
        assert (copies == copies[0]).all()


def test_passes_classes_and_seeds_differ_in_order():
    labels = np.repeat(np.int32([0, 1]), 50)
    firsts = []
    for seed in (0, 1):
        sequence = order(labels, 200, seed).examples(0)
        for label in (0, 1):
            members = sequence[labels[sequence] == label] - 50 * label
            firsts += [members[:50].tobytes(), members[50:].tobytes()]
    assert len(set(firsts)) == 8


def test_balanced_order_never_changes():
    """A run started with an older version resumes in the same order."""
    labels = np.int32([0, 0, 0, 1, 1, 4])
    assert order(labels, 9, seed=3).examples(1).tolist() == [5, 3, 1, 2, 5, 4, 0, 3, 5]


def test_a_stream_whose_classes_are_unknown_raises(data_dir):
    source = open_source('tfds:digits', data_dir)
    stream = open_split(source, 'train', Preprocessing((8, 8), 1, (0.5,), (0.5,)), memory_gib=0.0)
    with pytest.raises(InputError, match='expected a split in memory, .* raise data.memory_gib'):
        create_order('balanced', stream, 2, range(2), 0)


def test_sampling_chooses_the_order():
    labels = np.int32([0, 0, 1])
    examples = InMemory(np.zeros((3, 1, 1, 1), np.uint8), labels)
    assert type(create_order('balanced', examples, 2, range(2), 0)) is BalancedOrder
    assert type(create_order('uniform', examples, 2, range(2), 0)) is not BalancedOrder
    with pytest.raises(InputError, match="data.sampling: expected 'uniform' or 'balanced', got"):
        create_order('random', examples, 2, range(2), 0)
    several = InMemory(examples.images, np.eye(3, dtype=np.uint8))
    with pytest.raises(
        InputError, match="data.sampling='balanced': expected one label per picture"
    ):
        create_order('balanced', several, 2, range(2), 0)
