"""Early stopping: whether a run ends before its last step, as a function of its metrics alone."""

from typing import Any

from vit_jax.errors import InputError


def stop_reason(lines: list[dict[str, Any]], metric: str, patience: int) -> str | None:
    """Why a run that has just been evaluated ends here; None if it goes on.

    It ends if none of the last `patience` evaluations is better than the best one before them. A
    resumed run has the same lines, so it ends at the same step.

    Args:
      lines: of `metrics.jsonl`.
      metric: of the test lines; lower is better if its name ends in 'loss', else higher.
      patience: evaluations; 0 to go on always.

    Raises:
      InputError: if the test lines have no such metric.
    """
    if not patience:
        return None
    tested = [line for line in lines if line['split'] == 'test']
    if metric not in tested[-1]:
        known = ', '.join(name for name in tested[-1] if name not in ('step', 'split', 'epoch'))
        raise InputError(f'early_stopping.metric: expected one of {known}, got {metric!r}')
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
