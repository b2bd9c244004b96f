"""Early stopping: whether a run ends before its last step, as a function of its metrics alone."""

from typing import Any

from vit_jax.errors import InputError


def check_metric(metric: str, *, multi_label: bool, has_average: bool) -> None:
    """Validates that the test lines of a run will have a metric.

    Args:
      multi_label: whether the data is.
      has_average: whether the run has a moving average of its parameters.

    Raises:
      InputError: if they will not.
    """
    known = ['loss', 'accuracy', *(['mean_average_precision'] if multi_label else [])]
    known += [f'ema_{name}' for name in known] if has_average else []
    if metric not in known:
        raise InputError(
            f'early_stopping.metric: expected one of {", ".join(known)}, got {metric!r}'
        )


def stop_reason(lines: list[dict[str, Any]], metric: str, patience: int) -> str | None:
    """Why a run that has just been evaluated ends here; None if it goes on.

    It ends if none of the last `patience` evaluations is better than the best one before them. A
    resumed run has the same lines, so it ends at the same step.

    Args:
      lines: of `metrics.jsonl`.
      metric: of the test lines; lower is better if its name ends in 'loss', else higher.
      patience: evaluations; 0 to go on always.
    """
    if not patience:
        return None
    tested = [line for line in lines if line['split'] == 'test']
    sign = -1 if metric.endswith('loss') else 1
    values = {line['step']: sign * line[metric] for line in tested if metric in line}
    best = max(values, key=lambda step: values[step])  # the first of equals
    since = sum(step > best for step in values)
    if since < patience:
        return None
    return (
        f'step {tested[-1]["step"]}: the run ends early: {metric} is no better than at step '
        f'{best}, {since} evaluations ago (early_stopping.patience={patience})'
    )
