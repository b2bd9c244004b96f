"""Evaluates weights on a data set of the same classes, example by example."""

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float32, Float64, Int, Int32, UInt8

from vit_jax.data.memory import InMemory
from vit_jax.data.picture import MAX_PIXELS
from vit_jax.data.sources import open_source, open_split
from vit_jax.data.stream import Stream
from vit_jax.errors import InputError
from vit_jax.parallel.parallel import create_parallel
from vit_jax.train.evaluate import run_batches
from vit_jax.train.losses import sigmoid_cross_entropy
from vit_jax.use.answer import of_logits
from vit_jax.use.multi_label import MultiLabelEvaluation
from vit_jax.use.split_evaluation import SplitEvaluation
from vit_jax.weights.reading import Weights, check_classifies, read_weights

BINS = 15  # of the confidence, as in Guo et al.
MISTAKES = 24  # whose images are kept


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation(SplitEvaluation):
    """What a model predicts for the n examples of a split, and how right it is.

    Args:
      labels: true classes.
      predicted: likeliest classes.
      confidence: probability of the predicted class.
      true_probability: probability of the true class.
      rank: how many classes were likelier than the true one.
      mistakes: the indices of the most confident mistakes, most confident first, at most 24.
      mistake_images: what the model saw of them.
      **fields: see `SplitEvaluation`; the loss is the cross-entropy.
    """

    labels: Int32[np.ndarray, 'n']
    predicted: Int32[np.ndarray, 'n']
    confidence: Float32[np.ndarray, 'n']
    true_probability: Float32[np.ndarray, 'n']
    rank: Int32[np.ndarray, 'n']
    mistakes: Int[np.ndarray, 'm']
    mistake_images: UInt8[np.ndarray, 'm h w c']

    def summary(self) -> dict[str, Any]:
        """The numbers that stand for the whole, ready for JSON.

        Returns:
          'split', 'num_examples', 'num_skipped', 'loss', 'accuracy'; 'top_5_accuracy' if there are
          more than five classes; 'expected_calibration_error'; 'per_class': class name →
          'accuracy' (None without examples) and 'num_examples'.
        """
        top_5 = {'top_5_accuracy': float((self.rank < 5).mean())}
        correct = self.labels[self.predicted == self.labels]
        counts = [np.bincount(x, minlength=len(self.class_names)) for x in (correct, self.labels)]
        return super().summary() | {
            'accuracy': float((self.predicted == self.labels).mean()),
            **(top_5 if len(self.class_names) > 5 else {}),
            'expected_calibration_error': self.expected_calibration_error,
            'per_class': {
                name: {'accuracy': right / count if count else None, 'num_examples': count}
                for name, right, count in zip(
                    self.class_names, *(x.tolist() for x in counts), strict=True
                )
            },
        }

    @functools.cached_property
    def confusion(self) -> Int[np.ndarray, 'k k']:
        """How many examples of each class, by row, were taken for each class, by column."""
        shape = len(self.class_names), len(self.class_names)
        cells = np.ravel_multi_index((self.labels, self.predicted), shape)
        return np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape)

    @functools.cached_property
    def reliability(self) -> Float64[np.ndarray, '15 3']:
        """Of each of 15 equal-width bins of the confidence, (i/15, (i + 1)/15]: the share of the
        examples, their accuracy and their mean confidence; the last two are 0 in an empty bin.
        """
        confidence = self.confidence.astype(np.float64)
        bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
        weights = np.ones(len(bins)), self.predicted == self.labels, confidence
        counts, correct, total = (np.bincount(bins, weight, BINS) for weight in weights)
        filled = np.maximum(counts, 1)
        return np.stack([counts / len(bins), correct / filled, total / filled], axis=1)

    @property
    def expected_calibration_error(self) -> float:
        """Σ share · |accuracy - confidence| over the bins of `reliability`, in [0, 1].

        Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv:1706.04599.
        """
        share, accuracy, confidence = self.reliability.T
        return float((share * abs(accuracy - confidence)).sum())


def evaluate(
    weights: Weights | str | os.PathLike[str],
    source: str,
    split: str,
    *,
    data_dir: str | None = None,
    memory_gib: float = 4.0,
    on_error: str = 'raise',
    max_pixels: int = MAX_PIXELS,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> Evaluation | MultiLabelEvaluation:
    """Evaluates weights over all devices.

    Args:
      weights: a run directory, a weight file or a Hugging Face folder; or what
        `vit_jax.weights.reading.read_weights` gives, with its options.
      source, data_dir: see `vit_jax.data.sources.open_source`.
      split: of the source; 'all' for all splits together.
      memory_gib, on_error, max_pixels: see `vit_jax.data.sources.open_split`.
      mean, std: see `vit_jax.Predictor`.

    Raises:
      InputError: if there is no such source or split, its classes are not those of the weights,
        only one of the two is multi-label, or an example is unusable and is not to be skipped.
    """
    if not isinstance(weights, Weights):
        weights = read_weights(weights)
    check_classifies(weights.model, weights.name)
    data = open_source(source, data_dir)
    class_names = weights.description['class_names'] or data.class_names
    if class_names != data.class_names or weights.model.num_classes != len(data.class_names):
        raise InputError(
            f'{source}: expected the {weights.model.num_classes} classes of the weights, '
            f'{_shorten(class_names)}, with pictures of each, got {_shorten(data.class_names)}'
        )
    if weights.multi_label != data.multi_label:
        kinds = ('one label per picture', 'multi-label data')
        raise InputError(
            f'{source}: expected {kinds[weights.multi_label]}, which the weights are for, got '
            f'{kinds[data.multi_label]}'
        )
    preprocessing = weights.preprocessing(mean, std)
    options: Any = {'memory_gib': memory_gib, 'on_error': on_error, 'max_pixels': max_pixels}
    examples = open_split(data, split, preprocessing, **options)

    def predict(variables: dict[str, Any], batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        logits: Any = weights.model.apply(variables, preprocessing.normalize(batch['image']))
        to_columns = multi_label_predictions if weights.multi_label else predictions
        return to_columns(logits, batch['label']) | {'mask': batch['mask']}

    found = _predict_all(predict, weights.variables, examples)
    if not len(found['labels']):
        raise InputError('expected pictures to evaluate on, but none is usable')
    index = found.pop('index')
    fields: dict[str, Any] = found | {
        'weights': weights.name,
        'data': data.name,
        'split': split,
        'class_names': class_names,
        'num_skipped': len(examples.skipped),
        'names': _names(data.open(split).name, index, examples),
    }
    if weights.multi_label:
        return MultiLabelEvaluation(**fields)
    wrong = np.flatnonzero(found['predicted'] != found['labels'])
    mistakes = wrong[np.argsort(-found['confidence'][wrong], kind='stable')][:MISTAKES]
    return Evaluation(
        mistakes=mistakes,
        mistake_images=examples.gather(index[mistakes])['image'],
        **fields,
    )


def predictions(
    logits: Float32[jax.Array, 'b k'], labels: Int32[jax.Array, 'b']
) -> dict[str, jax.Array]:
    """The fields of `Evaluation` that are arrays [b]."""
    probabilities = of_logits(logits, multi_label=False)
    predicted = logits.argmax(axis=-1)
    of_label, of_predicted = labels[:, None], predicted[:, None]
    true_logit = jnp.take_along_axis(logits, of_label, axis=-1)
    # Of equal logits, the first counts as the likelier, as in argmax.
    before = jnp.arange(logits.shape[-1]) < of_label
    likelier = (logits > true_logit) | ((logits == true_logit) & before)
    return {
        'labels': labels,
        'predicted': predicted,
        'confidence': jnp.take_along_axis(probabilities, of_predicted, axis=-1)[:, 0],
        'true_probability': jnp.take_along_axis(probabilities, of_label, axis=-1)[:, 0],
        'loss': optax.softmax_cross_entropy_with_integer_labels(logits, labels),
        'rank': likelier.sum(axis=-1),
    }


def multi_label_predictions(
    logits: Float32[jax.Array, 'b k'], labels: UInt8[jax.Array, 'b k']
) -> dict[str, jax.Array]:
    """The fields of `MultiLabelEvaluation` that are arrays [b] or [b, k]."""
    return {'labels': labels, 'logits': logits, 'loss': sigmoid_cross_entropy(logits, labels)}


def _predict_all(
    predict: Callable[..., Any], variables: dict[str, Any], examples: InMemory | Stream
) -> dict[str, np.ndarray]:
    """`predict` of all examples that count, with the 'index' of each."""
    parallel = create_parallel('jit', 32 * jax.device_count())
    compiled, state = parallel.eval_step(predict), parallel.spread(variables)
    found = run_batches(compiled, state, examples, parallel)
    columns = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    counts = columns.pop('mask').astype(bool)
    columns['index'] = np.arange(len(counts))
    return {name: column[counts] for name, column in columns.items()}


def _names(name: Callable[[int], str], index: np.ndarray, examples: InMemory | Stream) -> list[str]:
    """Where examples are to be found; in memory, those skipped have no index."""
    if isinstance(examples, InMemory):
        stored = len(examples.labels) + len(examples.skipped)
        index = np.setdiff1d(np.arange(stored), list(examples.skipped))[index]
    return [name(i) for i in index.tolist()]


def _shorten(names: list[str]) -> str:
    return ', '.join(names[:5]) + (', …' if len(names) > 5 else '')
