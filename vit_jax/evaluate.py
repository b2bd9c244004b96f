"""Loss and accuracy over a whole split, every example counted exactly once."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax

from vit_jax.data import EvalOrder, Examples, Stream, eval_batches, open_source, open_split
from vit_jax.errors import InputError
from vit_jax.parallel import Jit, Pmap, create_parallel
from vit_jax.run_directory import read_json
from vit_jax.step import TrainState, eval_step
from vit_jax.weights import Weights


def evaluate(
    run_eval_step: Callable[[Any], Any], parallel: Jit | Pmap, examples: Examples | Stream
) -> dict[str, float]:
    """Mean loss and accuracy.

    Args:
      run_eval_step: batch on the devices → sums, as `vit_jax.step.eval_step` returns them.

    Raises:
      InputError: where an example cannot be used and is not to be left out, or none is left.
    """
    order = EvalOrder(examples.num_examples, parallel.batch_size, parallel.rows)
    sums: list[Any] = []
    with eval_batches(examples, order, parallel.put_batch) as batches:
        for batch in batches:
            sums.append(run_eval_step(batch))
            sums[-2:-1] = jax.device_get(sums[-2:-1])  # so that few batches are on the device
    total = jax.tree.map(lambda *values: math.fsum(map(float, values)), *jax.device_get(sums))
    count = total.pop('count')
    if not count:
        raise InputError('expected pictures to evaluate on, but none can be used')
    return {name: value / count for name, value in total.items()}


def evaluate_weights(
    weights: Weights,
    source: str,
    split: str,
    *,
    data_dir: str | None = None,
    on_error: str = 'raise',
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> dict[str, Any]:
    """Evaluates weights on data of the same classes, over all devices.

    Args:
      weights: from `vit_jax.weights.read_weights`.
      source, data_dir: see `vit_jax.data.open_source`.
      split: of the source.
      on_error: see `vit_jax.data.open_split`.
      mean, std: see `vit_jax.Predictor`.

    Returns:
      'split', 'num_examples', 'num_skipped', 'loss', 'accuracy'.

    Raises:
      InputError: where source or split are not there, or have other classes than the weights.
    """
    data = open_source(source, data_dir)
    theirs = weights.description['class_names'] or data.class_names
    if theirs != data.class_names or weights.model.num_classes != len(data.class_names):
        raise InputError(
            f'{source}: expected the {weights.model.num_classes} classes of the weights, '
            f'{_few(theirs)}, got {_few(data.class_names)}'
        )
    preprocessing = weights.preprocessing(mean, std)
    examples = open_split(data, split, preprocessing, on_error=on_error)
    batch_size = 32 * jax.device_count()
    parallel = create_parallel('jit', batch_size)
    step = parallel.eval_step(
        partial(eval_step, model=weights.model, normalize=preprocessing.normalize)
    )
    state = parallel.spread(TrainState(0, weights.variables['params'], ()))
    metrics = evaluate(partial(step, state), parallel, examples)
    skipped = len(examples.skipped)
    count = examples.num_examples - (skipped if isinstance(examples, Stream) else 0)
    return {'split': split, 'num_examples': count, 'num_skipped': skipped, **metrics}


def trained_on(run_directory: Path) -> Any:
    """`config.data` of a run; {} where it is none."""
    if not (run_directory / 'description.json').is_file():
        return {}
    config = read_json(run_directory / 'config.json')
    if not isinstance(config, dict) or not isinstance(config.get('data'), dict):
        raise InputError(f"{run_directory}: expected a run's config.json, with its 'data'")
    return config['data']


def _few(names: list[str]) -> str:
    return ', '.join(names[:5]) + (', …' if len(names) > 5 else '')
