"""Evaluates weights on a data set of the same classes."""

from typing import Any

import jax

from vit_jax.data.picture import MAX_PIXELS
from vit_jax.data.sources import open_source, open_split
from vit_jax.data.stream import Stream
from vit_jax.errors import InputError
from vit_jax.parallel.parallel import create_parallel
from vit_jax.train.evaluate import evaluate
from vit_jax.train.step import Learner, TrainState
from vit_jax.weights.reading import Weights


def evaluate_weights(
    weights: Weights,
    source: str,
    split: str,
    *,
    data_dir: str | None = None,
    on_error: str = 'raise',
    max_pixels: int = MAX_PIXELS,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> dict[str, Any]:
    """Evaluates weights over all devices.

    Args:
      weights: from `vit_jax.weights.reading.read_weights`.
      source, data_dir: see `vit_jax.data.sources.open_source`.
      split: of the source.
      on_error, max_pixels: see `vit_jax.data.sources.open_split`.
      mean, std: see `vit_jax.Predictor`.

    Returns:
      'split', 'num_examples', 'num_skipped', 'loss', 'accuracy'.

    Raises:
      InputError: if there is no such source or split, or its classes are not those of the weights.
    """
    data = open_source(source, data_dir)
    class_names = weights.description['class_names'] or data.class_names
    if class_names != data.class_names or weights.model.num_classes != len(data.class_names):
        raise InputError(
            f'{source}: expected the {weights.model.num_classes} classes of the weights, '
            f'{_shorten(class_names)}, got {_shorten(data.class_names)}'
        )
    preprocessing = weights.preprocessing(mean, std)
    examples = open_split(data, split, preprocessing, on_error=on_error, max_pixels=max_pixels)
    parallel = create_parallel('jit', 32 * jax.device_count())
    eval_step = parallel.eval_step(Learner(weights.model, preprocessing.normalize).eval_step)
    state = parallel.spread(TrainState(0, weights.variables['params'], ()))
    metrics = evaluate(eval_step, state, examples, parallel)
    num_skipped = len(examples.skipped)
    # A stream counts its skipped examples among the others.
    num_examples = examples.num_examples - (num_skipped if isinstance(examples, Stream) else 0)
    return {'split': split, 'num_examples': num_examples, 'num_skipped': num_skipped, **metrics}


def _shorten(names: list[str]) -> str:
    return ', '.join(names[:5]) + (', …' if len(names) > 5 else '')
