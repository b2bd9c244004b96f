"""What a model predicts for multi-label data, where a picture may have any number of classes."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from vit_jax.train.average_precision import average_precision, mean_average_precision
from vit_jax.use.split_evaluation import SplitEvaluation


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiLabelEvaluation(SplitEvaluation):
    """What a model predicts for the n examples of a split, and how right it is.

    Args:
      labels: 1 where an example has a class, 0 elsewhere.
      logits: of the classes, whose sigmoids are their probabilities.
      **fields: see `SplitEvaluation`; the loss is
        `vit_jax.train.losses.sigmoid_cross_entropy`.
    """

    labels: UInt8[np.ndarray, 'n k']
    logits: Float32[np.ndarray, 'n k']

    @property
    def probabilities(self) -> Float32[np.ndarray, 'n k']:
        """Of each class by itself."""
        return np.exp(-np.logaddexp(0, -self.logits))

    @property
    def predicted(self) -> Bool[np.ndarray, 'n k']:
        """The classes with a probability above one half."""
        return self.logits > 0

    def summary(self) -> dict[str, Any]:
        """The numbers that stand for the whole, ready for JSON.

        Returns:
          'split', 'num_examples', 'num_skipped', 'loss'; 'accuracy', the share of examples whose
          predicted classes are exactly the true ones; 'mean_average_precision'; 'per_class': class
          name → 'average_precision' (None without examples) and 'num_examples'.
        """
        precision = average_precision(self.labels, self.logits).tolist()
        counts = self.labels.sum(axis=0, dtype=np.int64).tolist()
        return super().summary() | {
            'accuracy': float((self.predicted == self.labels).all(axis=1).mean()),
            'mean_average_precision': mean_average_precision(self.labels, self.logits),
            'per_class': {
                name: {'average_precision': of_class if count else None, 'num_examples': count}
                for name, of_class, count in zip(self.class_names, precision, counts, strict=True)
            },
        }
