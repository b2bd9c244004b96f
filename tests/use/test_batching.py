import threading

import pytest

from vit_jax.use.serving.batching import Batcher, Busy, Work, measure_work

SECONDS = {1: 0.001, 4: 0.002}  # a batch of 4 pays from 3 inputs on


class Model:
    """Doubles numbers; holds its thread until it is told to go on."""

    def __init__(self):
        self.batches, self.may_run, self.has_begun = [], threading.Event(), threading.Event()

    def __call__(self, items):
        self.has_begun.set()
        assert self.may_run.wait(10)
        self.batches.append(items)
        if 13 in items:
            raise ZeroDivisionError
        return [2 * item for item in items]


@pytest.fixture
def model():
    return Model()


@pytest.fixture
def batcher(model):
    batcher = Batcher(max_waiting=16, max_seconds=1.0)
    yield batcher
    model.may_run.set()
    batcher.close()
    assert not batcher._thread.is_alive()


def hold(batcher, model, work):
    """Submits 0, and waits until it runs alone."""
    first = batcher.submit(work, 0)
    assert model.has_begun.wait(10)
    return first


def test_what_arrives_during_a_batch_is_the_next_one_and_everyone_gets_their_own(batcher, model):
    work = Work(model, SECONDS)
    results = [hold(batcher, model, work)]
    results += [batcher.submit(work, item) for item in range(1, 12)]
    model.may_run.set()
    assert [result.result(10) for result in results] == [2 * item for item in range(12)]
    # By 4; then 3 are left, which take 2 ms together and 3 ms one by one.
    assert model.batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11]]


@pytest.mark.parametrize(
    'seconds, sizes',
    [
        ({1: 1.0, 16: 16.0, 128: 128.0}, {1: 1, 5: 1, 200: 1}),  # a processor that is busy with one
        ({1: 1.0, 16: 2.0, 128: 16.0}, {1: 1, 2: 1, 3: 16, 16: 16, 200: 16}),
        ({1: 1.0, 16: 1.1, 128: 1.5}, {1: 1, 2: 16, 16: 16, 22: 128, 200: 128}),
    ],
)
def test_the_batch_size_is_the_one_that_answers_most_per_second(seconds, sizes):
    work = Work(lambda items: items, seconds)
    assert {waiting: work.choose_size(waiting) for waiting in sizes} == sizes


def test_a_size_is_measured_only_if_a_smaller_one_is_quick_and_kept_only_if_it_pays(monkeypatch):
    clock, each = [0.0], {1: 0.001, 16: 0.002, 128: 0.6, 512: 0.0}
    monkeypatch.setattr('vit_jax.use.serving.batching.time.perf_counter', lambda: clock[0])

    def run(items):
        clock[0] += each[len(items)]
        return items

    work = measure_work(run, 0, tuple(each))
    assert work.seconds == pytest.approx({1: 0.001, 16: 0.002})
    assert work.seconds_each == pytest.approx(0.002 / 16)


def test_works_are_not_mixed_and_nobody_is_overtaken_by_later_batches(batcher, model):
    one, two = Work(model, SECONDS), Work(model, SECONDS)
    hold(batcher, model, one)
    for number in range(1, 7):
        last = batcher.submit(two if number % 2 else one, number)
    model.may_run.set()
    last.result(10)
    assert model.batches == [[0], [1, 3, 5], [2, 4, 6]]


def test_a_full_queue_refuses_and_has_room_again(batcher, model):
    slow = Work(model, {1: 0.3})
    with batcher.admit(slow, 1), batcher.admit(slow, 2):
        with pytest.raises(Busy, match='try again in 1 s') as refusal, batcher.admit(slow, 1):
            pass  # 1.2 s of work
        assert refusal.value.seconds == 1.0 and batcher.num_admitted == 3
    quick = Work(model, SECONDS)
    with batcher.admit(quick, 16):
        with pytest.raises(Busy):
            batcher.check_room(quick)
        assert batcher.num_admitted == 16
    assert batcher.num_admitted == 0
    with batcher.admit(Work(model, {1: 5.0}), 1):  # alone, it is always admitted
        pass


def test_an_error_reaches_those_of_its_batch_alone(batcher, model):
    work = Work(model, {1: 1.0})
    results = [hold(batcher, model, work), *(batcher.submit(work, item) for item in (13, 14))]
    model.may_run.set()
    with pytest.raises(ZeroDivisionError):
        results[1].result(10)
    assert results[2].result(10) == 28


def test_what_was_cancelled_is_not_run_and_closing_answers_the_rest(batcher, model):
    work = Work(model, {1: 1.0})
    hold(batcher, model, work)
    results = [batcher.submit(work, item) for item in range(1, 5)]
    assert results[1].cancel()
    closing = threading.Thread(target=batcher.close)
    closing.start()
    model.may_run.set()
    closing.join(10)
    assert model.batches == [[0], [1], [3], [4]]
    assert results[3].result(0) == 8
    with pytest.raises(RuntimeError, match='open batcher'):
        batcher.submit(work, 5)
