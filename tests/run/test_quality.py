"""The metric that chooses the best checkpoint, and how it is printed."""

import pytest

from vit_jax.run.quality import quality, show_quality

SINGLE = {'accuracy': 0.5, 'loss': 1.0}
AVERAGED = SINGLE | {'ema_accuracy': 0.75, 'ema_loss': 0.5}
SEVERAL = AVERAGED | {'mean_average_precision': 0.25, 'ema_mean_average_precision': 0.125}


@pytest.mark.parametrize(
    'metrics, ema, expected, text',
    [
        (SINGLE, True, ('accuracy', 0.5), 'accuracy 50.00%'),
        (AVERAGED, True, ('accuracy', 0.75), 'accuracy 50.00%, averaged 75.00%'),
        (AVERAGED, False, ('accuracy', 0.5), 'accuracy 50.00%, averaged 75.00%'),
        (SEVERAL, True, ('mAP', 0.125), 'mAP 25.00%, averaged 12.50%'),
        (SEVERAL, False, ('mAP', 0.25), 'mAP 25.00%, averaged 12.50%'),
    ],
)
def test_quality_is_that_of_the_average_if_there_is_one(metrics, ema, expected, text):
    assert quality(metrics, ema) == expected and show_quality(metrics) == text
