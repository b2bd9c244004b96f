"""Loss and accuracy over a whole split, every example counted exactly once."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax

from vit_jax.data import Examples, eval_batches, open_source
from vit_jax.errors import InputError
from vit_jax.parallel import Jit, Pmap, create_parallel
from vit_jax.run_directory import read_json
from vit_jax.step import TrainState, eval_step
from vit_jax.weights import Weights


def evaluate(
    run_eval_step: Callable[[Any], Any],
    parallel: Jit | Pmap,
    examples: Examples,
    batch_size: int,
) -> dict[str, float]:
    """Mean loss and accuracy.

    Args:
      run_eval_step: batch on the devices → sums, as `vit_jax.step.eval_step` returns them.
    """
    sums: list[Any] = []
    for batch in eval_batches(examples, batch_size):
        sums.append(run_eval_step(parallel.put_batch(batch)))
        sums[-2:-1] = jax.device_get(sums[-2:-1])  # so that two batches at most are on the device
    total = jax.tree.map(lambda *values: math.fsum(map(float, values)), *jax.device_get(sums))
    count = total.pop('count')
    return {name: value / count for name, value in total.items()}


def evaluate_weights(
    weights: Weights,
    source: str,
    split: str,
    *,
    data_dir: str | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> dict[str, Any]:
    """Evaluates weights on data of the same classes, over all devices.

    Args:
      weights: from `vit_jax.weights.read_weights`.
      source, data_dir: see `vit_jax.data.open_source`.
      split: of the source.
      mean, std: see `vit_jax.Predictor`.

    Returns:
      'split', 'num_examples', 'loss', 'accuracy'.

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
    examples = data.read(split, preprocessing.resize)
    batch_size = 32 * jax.device_count()
    parallel = create_parallel('jit', batch_size)
    step = parallel.eval_step(
        partial(eval_step, model=weights.model, normalize=preprocessing.normalize)
    )
    state = parallel.spread(TrainState(0, weights.variables['params'], ()))
    metrics = evaluate(partial(step, state), parallel, examples, batch_size)
    return {'split': split, 'num_examples': len(examples.labels), **metrics}


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
