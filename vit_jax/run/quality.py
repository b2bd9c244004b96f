"""What tells a better model: the metric that chooses the best checkpoint and is printed."""

from typing import Any


def quality(metrics: dict[str, Any], ema: bool = True) -> tuple[str, float]:
    """The name and the value of the metric that counts, in [0, 1].

    Args:
      metrics: with 'accuracy', and 'mean_average_precision' if multi-label data was evaluated; of
        the moving average likewise, after 'ema_'.
      ema: whether that of the moving average counts, if there is one.
    """
    prefix = 'ema_' if ema and 'ema_accuracy' in metrics else ''
    if f'{prefix}mean_average_precision' in metrics:
        return 'mAP', float(metrics[f'{prefix}mean_average_precision'])
    return 'accuracy', float(metrics[f'{prefix}accuracy'])


def show_quality(metrics: dict[str, Any]) -> str:
    """As text, with that of the moving average if there is one."""
    text = '{} {:.2%}'.format(*quality(metrics, ema=False))
    return f'{text}, averaged {quality(metrics)[1]:.2%}' if 'ema_accuracy' in metrics else text
