"""Average precision: how well a score ranks the examples of a class before all others."""

import numpy as np
from jaxtyping import Float64, Num, Shaped


def average_precision(
    labels: Num[np.ndarray, 'n k'], scores: Shaped[np.ndarray, 'n k']
) -> Float64[np.ndarray, 'k']:
    """Σ_i (R_i - R_(i-1)) P_i of each class, over its distinct scores from the highest.

    P_i and R_i are precision and recall of the examples with at least the i-th score. There is no
    interpolation, as in scikit-learn's `average_precision_score`:
    https://scikit-learn.org/stable/modules/generated/sklearn.metrics.average_precision_score.html

    Args:
      labels: 1 where an example has a class, 0 elsewhere.
      scores: any increasing function of the probabilities.

    Returns:
      Of each class, in [0, 1]; NaN without examples.
    """
    pairs = zip(labels.T > 0, scores.T, strict=True)
    return np.array([_of_class(present, score) for present, score in pairs], np.float64)


def mean_average_precision(
    labels: Num[np.ndarray, 'n k'], scores: Shaped[np.ndarray, 'n k']
) -> float:
    """The mean of `average_precision` over the classes with examples; 0 if there are none."""
    of_classes = average_precision(labels, scores)
    known = of_classes[~np.isnan(of_classes)]
    return float(known.mean()) if len(known) else 0.0


def _of_class(present: np.ndarray, scores: np.ndarray) -> float:
    if not present.any():
        return np.nan
    order = np.argsort(-scores, kind='stable')
    # The last example of each distinct score: equal ones are retrieved together.
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    found = np.cumsum(present[order])[last]
    return float((np.diff(found, prepend=0) * found / (last + 1)).sum() / present.sum())
