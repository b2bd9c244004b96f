"""What tells a better model: the metric that chooses the best checkpoint and is printed."""

from typing import Any


def quality(metrics: dict[str, Any]) -> tuple[str, float]:
    """The name and the value of the metric that counts, in [0, 1].

    Args:
      metrics: with 'accuracy', and 'mean_average_precision' if multi-label data was evaluated.
    """
    if 'mean_average_precision' in metrics:
        return 'mAP', float(metrics['mean_average_precision'])
    return 'accuracy', float(metrics['accuracy'])
