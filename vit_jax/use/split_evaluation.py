"""What all evaluations of a split have in common, whatever their labels."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float32


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitEvaluation:
    """What a model was evaluated on, n examples of a split, and its loss.

    Args:
      weights: their name.
      data: name of the data set.
      split: of it.
      class_names: in label order.
      num_skipped: examples left out, which are not among the n.
      names: where each example is to be found: its file, or its number in the split.
      loss: of each example.
    """

    weights: str
    data: str
    split: str
    class_names: list[str]
    num_skipped: int
    names: list[str]
    loss: Float32[np.ndarray, 'n']

    def summary(self) -> dict[str, Any]:
        """'split', 'num_examples', 'num_skipped' and 'loss', ready for JSON."""
        return {
            'split': self.split,
            'num_examples': len(self.loss),
            'num_skipped': self.num_skipped,
            'loss': float(self.loss.mean(dtype=np.float64)),
        }
