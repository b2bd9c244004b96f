"""Loads weights from a run directory."""

from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from vit_jax.errors import InputError
from vit_jax.model.shapes import abstract_variables
from vit_jax.model.vit import ViT
from vit_jax.run.checkpoint import Checkpoints
from vit_jax.run.checkpoint_names import check_name
from vit_jax.run.description import read_description
from vit_jax.run.storage import AnyPath
from vit_jax.weights.adapters import merge_adapters
from vit_jax.weights.files import as_input_error


def load_run(
    run_directory: AnyPath, step: str | int = 'newest', ema: bool = True
) -> tuple[ViT, dict[str, Any], dict[str, Any], str]:
    """Loads the model that a run has trained.

    Args:
      run_directory: of a run that has saved a checkpoint; the run may still be in progress.
      step: of the checkpoint: 'newest', 'best' (on the test split) or a number, as int or digits.
      ema: whether to take the moving average of the parameters, if the run has one.

    Returns:
      The model and its variables, adapters merged; the run's description ('preprocessing',
      'class_names'); and what was loaded, as text.

    Raises:
      InputError: if it is not a run directory, or has no such checkpoint.
    """
    check_name(run_directory)
    description = read_description(run_directory)
    with as_input_error(run_directory):
        model = ViT(**description.pop('model'))
    if not (run_directory / 'checkpoints').is_dir():
        raise InputError(f'{run_directory}: the run has not saved a checkpoint yet')
    with Checkpoints(run_directory, description.pop('run'), read_only=True) as checkpoints:
        number = checkpoints.best(ema) if step == 'best' else None
        if str(step).isdecimal() and len(str(step)) < 11:
            number = int(step)
        if step != 'newest' and number not in checkpoints.steps:
            there = ', '.join(map(str, checkpoints.steps)) or 'none'
            problem = f'no checkpoint {step}; expected newest, best or one of {there}'
            if step == 'best':
                problem = (
                    f'no checkpoint has been evaluated, so none is the best; expected newest or '
                    f'one of {there}'
                )
            raise InputError(f'{run_directory}: {problem}')
        with as_input_error(run_directory):
            like = abstract_variables(model)['params']
            number, item, params = checkpoints.restore_params(number, like, ema)
        name = f'{run_directory}, step {number:,}' + ', moving average' * (item == 'ema')
        flat = {name: np.asarray(x) for name, x in flatten_dict(params, sep='/').items()}
        model, flat = merge_adapters(model, flat)
        return model, {'params': unflatten_dict(flat, sep='/')}, description, name
