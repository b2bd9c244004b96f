import jax
import numpy as np

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
        assert (checkpoints.steps, checkpoints.newest, checkpoints.best) == ([3, 5], 5, 3)
        assert checkpoints.restore(3, like).step == 3
        assert checkpoints.restore_params(3, like.params)['a'].tolist() == [3.0] * 3


def test_checkpoint_without_evaluation_is_never_the_best(tmp_path):
    state = TrainState(np.int32(0), {'a': np.zeros(3)}, ())
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, metrics=None)
        assert (checkpoints.newest, checkpoints.best) == (1, None)
        checkpoints.save(2, state, {'accuracy': 0.1})
        checkpoints.save(3, state, metrics=None)
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert (checkpoints.steps, checkpoints.newest, checkpoints.best) == ([2, 3], 3, 2)
