import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vit_jax.data.batches import eval_batches, train_batches
from vit_jax.data.memory import InMemory
from vit_jax.data.order import EvalOrder, TrainOrder, epoch_order, random_uniform
from vit_jax.errors import InputError


def order(num_examples, batch_size, seed=0, repeats=1):
    return TrainOrder(num_examples, batch_size, range(batch_size), seed, repeats)


@settings(deadline=None)
@given(num_examples=st.integers(1, 50), batch_size=st.integers(1, 70), seed=st.integers(0, 2**31))
def test_every_epoch_visits_each_example_exactly_once(num_examples, batch_size, seed):
    num_epochs = 3
    steps = -(-num_epochs * num_examples // batch_size)
    batches = [order(num_examples, batch_size, seed).examples(step) for step in range(steps)]
    sequence = np.concatenate(batches)[: num_epochs * num_examples]
    for epoch in sequence.reshape(num_epochs, num_examples):
        assert sorted(epoch) == list(range(num_examples))


@settings(deadline=None)
@given(
    num_examples=st.integers(1, 40),
    share=st.integers(1, 6),
    num_processes=st.sampled_from([1, 2, 4]),
    repeats=st.sampled_from([1, 2, 4]),
    steps=st.lists(st.integers(0, 30), min_size=1, max_size=5),
)
def test_processes_rows_make_up_the_global_batch(
    num_examples, share, num_processes, repeats, steps
):
    """For any steps in any order: a batch does not depend on those before it."""
    batch_size = share * 4
    whole = order(num_examples, batch_size, 7, repeats)
    parts = [
        dataclasses.replace(whole, rows=range(i * batch_size // n, (i + 1) * batch_size // n))
        for n in [num_processes]
        for i in range(n)
    ]
    for step in steps:
        expected = whole.examples(step)
        np.testing.assert_array_equal(np.concatenate([x.examples(step) for x in parts]), expected)
        # Copies of an example are batch_size / repeats rows apart.
        copies = expected.reshape(repeats, -1)
        assert (copies == copies[0]).all()


@settings(deadline=None)
@given(num_examples=st.integers(1, 20), repeats=st.sampled_from([2, 3]))
def test_each_example_occurs_repeats_times_an_epoch(num_examples, repeats):
    batch_size = 6
    steps = 2 * num_examples * repeats // batch_size
    if steps * batch_size == 2 * num_examples * repeats:  # two whole epochs
        batches = [order(num_examples, batch_size, 0, repeats).examples(t) for t in range(steps)]
        counts = np.bincount(np.concatenate(batches), minlength=num_examples)
        assert (counts == 2 * repeats).all()


def test_repeats_that_do_not_divide_the_batch_size_raise():
    with pytest.raises(InputError, match=r'data.repeats: expected a divisor of batch_size=8'):
        order(10, 8, repeats=3)


def test_epochs_and_seeds_differ_in_order():
    orders = [epoch_order(seed, epoch, 100) for seed in (0, 1) for epoch in (0, 1)]
    assert len({order.tobytes() for order in orders}) == 4


def test_order_is_uniform():
    """Chi-square: over many epochs each example comes first equally often."""
    from scipy.stats import chisquare

    firsts = np.bincount([epoch_order(0, epoch, 10)[0] for epoch in range(2000)], minlength=10)
    assert chisquare(firsts).pvalue > 1e-4


def test_random_numbers_of_rows_are_uniform():
    from scipy.stats import kstest

    draws = np.concatenate(
        [random_uniform(5, 0, step, row) for step in range(20) for row in range(20)]
    )
    assert kstest(draws, 'uniform').pvalue > 1e-4
    assert len(np.unique(draws)) == len(draws)


def test_order_never_changes():
    """A run started with an older version resumes in the same order."""
    expected = [3, 7, 4, 2, 9, 8, 1, 6, 5, 0]
    assert epoch_order(seed=0, epoch=1, num_examples=10).tolist() == expected


def numbered(num_examples):
    """Examples whose single pixel is their index."""
    numbers = np.arange(num_examples)
    images = numbers.astype(np.uint8).reshape(-1, 1, 1, 1)
    return InMemory(images, numbers.astype(np.int32))


def test_prefetched_batches_are_those_of_their_steps():
    examples, ten = numbered(10), order(10, 4, seed=3)
    with train_batches(examples, ten, range(5, 9), lambda batch: batch) as batches:
        later = list(batches)
    with train_batches(examples, ten, range(9), lambda batch: batch) as batches:
        all_ = list(batches)
    for step, batch, same in zip(range(5, 9), later, all_[5:], strict=True):
        assert all((batch[name] == same[name]).all() for name in batch)
        np.testing.assert_array_equal(batch['label'], ten.examples(step))
        np.testing.assert_array_equal(batch['image'].ravel(), batch['label'])
        assert batch['position'].tolist() == [0, 1, 2, 3]
        assert batch['label'].dtype == batch['position'].dtype == np.int32


@settings(deadline=None)
@given(
    num_examples=st.integers(1, 40), share=st.integers(1, 50), num_processes=st.sampled_from([1, 2])
)
def test_evaluation_batches_hold_each_example_once(num_examples, share, num_processes):
    batch_size = share * num_processes
    seen = []
    for process in range(num_processes):
        rows = range(process * share, (process + 1) * share)
        places = EvalOrder(num_examples, batch_size, rows)
        with eval_batches(numbered(num_examples), places, lambda batch: batch) as batches:
            for batch in batches:
                assert len(batch['image']) == len(batch['label']) == share
                seen += batch['label'][batch['mask'] == 1].tolist()
                assert set(batch['mask']) <= {0, 1}
    assert sorted(seen) == list(range(num_examples))
    if num_processes == 1:
        assert seen == list(range(num_examples))
