import shutil

import jax
import numpy as np
import pytest

from vit_jax.errors import InputError
from vit_jax.run.checkpoint import Checkpoints
from vit_jax.train.step import TrainState


def test_newest_and_best_checkpoints_are_kept(tmp_path):
    def state(step):
        return TrainState(np.int32(step), {'a': jax.numpy.full(3, step, float)}, ())

    like = jax.eval_shape(lambda: state(0))
    with Checkpoints(tmp_path) as checkpoints:
        for step, accuracy in [(1, 0.2), (2, 0.8), (3, 0.8), (4, 0.5), (5, 0.6)]:
            checkpoints.save(step, state(step), {'accuracy': accuracy})
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert (checkpoints.steps, checkpoints.best) == ([3, 4, 5], 3)
        step, restored = checkpoints.restore_newest(like)
        assert step == restored.step == 5
        assert checkpoints.restore_params(3, like.params)['a'].tolist() == [3.0] * 3


def test_checkpoint_with_no_or_damaged_evaluation_is_never_the_best(tmp_path, capsys):
    state = TrainState(np.int32(0), {'a': np.zeros(3)}, ())
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, metrics=None)
        checkpoints.wait()
        assert (checkpoints.steps, checkpoints.best) == ([1], None)
        checkpoints.save(2, state, {'accuracy': 0.1})
        checkpoints.save(3, state, metrics=None)
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert (checkpoints.steps, checkpoints.best) == ([2, 3], 2)
    record = tmp_path / 'checkpoints' / '2' / 'record' / 'metadata'
    record.write_text(record.read_text().replace('0.1', '0.9'))
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.best is None
    assert '2: its record is damaged; it is not the best one' in capsys.readouterr().err


@pytest.mark.parametrize('item', ['params', 'training', 'record'])
def test_changed_values_are_noticed_and_the_checkpoint_before_is_used(tmp_path, capsys, item):
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
            with pytest.raises(InputError, match='damaged: the checksum of params/a differs'):
                checkpoints.restore_params(2, like.params)
        step, restored = checkpoints.restore_newest(like)
    assert step == restored.step == 1 and restored.params['a'].tolist() == [1.0] * 3
    assert 'differs; checkpoint 1 is used instead' in capsys.readouterr().err
    assert not folder.exists() and list(folder.parent.glob('2.damaged-*'))


def test_values_that_are_not_finite_are_not_saved(tmp_path):
    state = TrainState(np.int32(0), {'a': np.array([1.0, np.nan])}, ())
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(FloatingPointError):
        checkpoints.save(1, state, None)
    assert checkpoints.steps == []
