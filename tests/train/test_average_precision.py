import numpy as np
import pytest
from conftest import peer

from vit_jax.train.average_precision import average_precision, mean_average_precision


@pytest.mark.parametrize('decimals', [1, 6])  # with one, most scores are tied
@pytest.mark.parametrize('seed', range(5))
def test_average_precision_is_scikit_learns(seed, decimals):
    peer('sklearn')
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(seed)
    labels = (rng.random((50, 6)) < rng.random(6)).astype(np.uint8)
    labels[0] = 1  # each class has an example
    scores = (rng.normal(size=(50, 6)) + labels).round(decimals).astype(np.float32)
    expected = average_precision_score(labels, scores, average=None)
    np.testing.assert_allclose(average_precision(labels, scores), expected, rtol=1e-12)
    mean = average_precision_score(labels, scores)
    assert mean_average_precision(labels, scores) == pytest.approx(mean, rel=1e-12)


def test_classes_without_examples_do_not_count():
    labels, scores = np.uint8([[1, 0], [0, 0]]), np.float32([[0.2, 0.9], [0.7, 0.1]])
    assert average_precision(labels, scores)[0] == 0.5
    assert np.isnan(average_precision(labels, scores)[1])
    assert mean_average_precision(labels, scores) == 0.5
    assert mean_average_precision(np.zeros((2, 2)), scores) == 0
