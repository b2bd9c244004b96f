import jax
import numpy as np
import pytest

import vit_jax
from vit_jax.data.sources import open_source, open_split
from vit_jax.parallel.parallel import create_parallel
from vit_jax.train.evaluate import evaluate
from vit_jax.train.step import Learner


@pytest.mark.parametrize('mode, num_devices', [('jit', 1), ('jit', 8), ('pmap', 8)])
# 40 divides 360, 64 does not, 400 exceeds it.
@pytest.mark.parametrize('batch_size', [8, 40, 64, 400])
def test_evaluation_counts_each_example_once(data_dir, mode, num_devices, batch_size):
    from vit_jax.data.preprocess import Preprocessing

    preprocessing = Preprocessing((8, 8), 1, (0.5,), (0.5,))
    examples = open_split(open_source('tfds:digits', data_dir), 'test', preprocessing)
    assert len(examples.labels) == 360
    model = vit_jax.ViT(
        image_size=8, patch_size=4, num_classes=10, dim=8, depth=1, heads=1, mlp_dim=8, channels=1
    )
    images = preprocessing.normalize(jax.numpy.asarray(examples.images))
    learner = Learner(model, preprocessing.normalize)
    state = jax.jit(learner.init)(jax.random.key(0), images[:1])
    logits = np.float64(model.apply({'params': state.params}, images))
    log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    loss = -log_probabilities[np.arange(360), examples.labels].mean()
    accuracy = (logits.argmax(-1) == examples.labels).mean()

    parallel = create_parallel(mode, batch_size, jax.devices()[:num_devices])
    eval_step = parallel.eval_step(learner.eval_step)
    metrics = evaluate(eval_step, parallel.spread(state), examples, parallel)
    assert metrics['accuracy'] == pytest.approx(accuracy, abs=1e-12)
    assert metrics['loss'] == pytest.approx(loss, rel=1e-5)
