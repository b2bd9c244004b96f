import gc
import shutil
import sys
import types

import jax
import numpy as np
import pytest

from vit_jax.errors import InputError
from vit_jax.run.checkpoint import Checkpoints
from vit_jax.run.unfinished import drops_unfinished_reads
from vit_jax.train.step import TrainState


def test_newest_and_best_checkpoints_are_kept(tmp_path):
    def state(step):
        return TrainState(np.int32(step), {'a': jax.numpy.full(3, step, float)}, ())

    like = jax.eval_shape(lambda: state(0))
    with Checkpoints(tmp_path) as checkpoints:
        for step, accuracy in [(1, 0.2), (2, 0.8), (3, 0.8), (4, 0.5), (5, 0.6)]:
            checkpoints.save(step, state(step), {'accuracy': accuracy})
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert (checkpoints.steps, checkpoints.best()) == ([3, 4, 5], 3)
        step, restored = checkpoints.restore_newest(like)
        assert step == restored.step == 5
        assert checkpoints.restore_params(3, like.params)[2]['a'].tolist() == [3.0] * 3


def test_the_best_by_the_average_is_kept_too(tmp_path):
    state = TrainState(np.int32(0), {'a': np.zeros(3)}, (), {'a': np.ones(3)})
    accuracies = [(1, 0.2, 0.9), (2, 0.8, 0.5), (3, 0.4, 0.5), (4, 0.5, 0.7), (5, 0.6, 0.6)]
    with Checkpoints(tmp_path) as checkpoints:
        for step, accuracy, averaged in accuracies:
            checkpoints.save(step, state, {'accuracy': accuracy, 'ema_accuracy': averaged})
        checkpoints.wait()
        assert checkpoints.steps == [1, 2, 4, 5]
        assert checkpoints.best() == 1 and checkpoints.best(ema=False) == 2
        like = jax.eval_shape(lambda: state).params
        _, item, params = checkpoints.restore_params(1, like)
        assert item == 'ema' and params['a'].tolist() == [1, 1, 1]
        _, item, params = checkpoints.restore_params(1, like, ema=False)
        assert item == 'params' and params['a'].tolist() == [0, 0, 0]


def test_checkpoint_with_no_or_damaged_evaluation_is_never_the_best(tmp_path, capsys):
    state = TrainState(np.int32(0), {'a': np.zeros(3)}, ())
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, metrics=None)
        checkpoints.wait()
        assert (checkpoints.steps, checkpoints.best()) == ([1], None)
        checkpoints.save(2, state, {'accuracy': 0.1})
        checkpoints.save(3, state, metrics=None)
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert (checkpoints.steps, checkpoints.best()) == ([2, 3], 2)
    record = tmp_path / 'checkpoints' / '2' / 'record' / 'metadata'
    record.write_text(record.read_text().replace('0.1', '0.9'))
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.best() is None
    assert (
        '2: the checksum of its record differs; the checkpoint is kept' in capsys.readouterr().err
    )
    with Checkpoints(tmp_path) as checkpoints:
        for step in (4, 5):
            checkpoints.save(step, state, None)
    assert checkpoints.steps == [2, 4, 5]


@pytest.mark.parametrize(
    'item, reason',
    [
        ('params', 'the checksum of params/a differs'),
        ('training', 'the checksum of training/step differs'),
        ('record', 'it was saved as 1'),
    ],
)
def test_changed_values_are_noticed_and_the_checkpoint_before_is_used(
    tmp_path, capsys, item, reason
):
    """Each item is replaced by that of another checkpoint, which is intact in itself."""

    def state(step):
        return TrainState(np.int32(step), {'a': jax.numpy.full(3, step, float)}, ())

    like = jax.eval_shape(lambda: state(0))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state(1), None)
        checkpoints.save(2, state(2), None)
    folder = tmp_path / 'checkpoints' / '2'
    shutil.rmtree(folder / item)
    shutil.copytree(tmp_path / 'checkpoints' / '1' / item, folder / item)
    with Checkpoints(tmp_path) as checkpoints:
        if item != 'training':
            with pytest.raises(InputError, match=f'the checkpoint is damaged: {reason}'):
                checkpoints.restore_params(2, like.params)
        step, restored = checkpoints.restore_newest(like)
    assert step == restored.step == 1 and restored.params['a'].tolist() == [1.0] * 3
    assert f'damaged: {reason}; checkpoint 1 is used instead' in capsys.readouterr().err
    assert not folder.exists() and list(folder.parent.glob('2.damaged-*'))


def test_a_deletion_that_was_interrupted_is_finished(tmp_path):
    state = TrainState(np.int32(0), {'a': np.zeros(3)}, ())
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, state, None)
    folder = tmp_path / 'checkpoints'
    shutil.copytree(folder / '1', folder / '3.orbax-checkpoint-tmp')
    (folder / '1').rename(folder / '1.deleted')
    (folder / '3.deleted').write_text('in the way')
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps == [2]
    assert [path.name for path in folder.iterdir()] == ['2']


def test_checkpoints_under_other_names_are_not_used(tmp_path):
    state = TrainState(np.int32(0), {'a': np.zeros(3)}, ())
    like = jax.eval_shape(lambda: state)
    with Checkpoints(tmp_path, 'a') as checkpoints:
        checkpoints.save(1, state, {'accuracy': 0.1})
    for name in ('2', '0003', '9' * 20):
        shutil.copytree(tmp_path / 'checkpoints' / '1', tmp_path / 'checkpoints' / name)
    with Checkpoints(tmp_path, 'b') as checkpoints:
        assert (checkpoints.steps, checkpoints.best()) == ([1, 2], None)  # another run's
    with Checkpoints(tmp_path, 'a') as checkpoints:
        assert (checkpoints.steps, checkpoints.best()) == ([1, 2], 1)
        assert checkpoints.restore_newest(like)[0] == 1


def test_values_that_are_not_finite_are_not_saved(tmp_path):
    state = TrainState(np.int32(0), {'a': np.array([1.0, np.nan])}, ())
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(FloatingPointError):
        checkpoints.save(1, state, None)
    assert checkpoints.steps == []


def test_reads_that_are_left_unfinished_print_nothing(monkeypatch):
    """As Orbax's, which raise when they are closed."""

    @types.coroutine
    def suspended():
        yield

    async def read():
        try:
            await suspended()
        except BaseException as error:
            raise ValueError('a traceback') from error

    @drops_unfinished_reads
    def restore():
        unfinished = [read()]
        unfinished[0].send(None)
        unfinished.append(unfinished)  # only the garbage collector finds it
        raise InputError('damaged')

    ignored = []
    monkeypatch.setattr(sys, 'unraisablehook', lambda x: ignored.append(str(x.exc_value)))
    with pytest.raises(InputError, match='damaged'):
        restore()
    assert not ignored
    with pytest.raises(InputError, match='damaged'):
        restore.__wrapped__()
    gc.collect()
    assert set(ignored) == {'a traceback'}  # which would have been printed
