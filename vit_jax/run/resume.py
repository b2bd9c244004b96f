"""What may change when a run resumes."""

from typing import Any

from flax.traverse_util import flatten_dict

from vit_jax.errors import InputError
from vit_jax.run.description import read_description
from vit_jax.run.json_files import read_json
from vit_jax.run.storage import AnyPath

# These shape the parameters, the optimizer's state or the pictures: changing one makes another run,
FIXED = (
    'model.',
    'data.',
    'init.',
    'ema.',
    'optim.name',
    'optim.freeze',
    'optim.layer_decay',
    'optim.lora_rank',
    'optim.lora_kernels',
    'optim.moments_dtype',
)
# except for these.
FREE = (
    'model.dtype',
    'model.dropout',
    'model.emb_dropout',
    'model.attn_dropout',
    'model.head_dropout',
    'model.drop_path',
    'data.dir',
    'data.on_error',
    'data.max_pixels',
)
# These say nothing of the run.
OF_A_START = ('distributed.', 'dry_run', 'profile')


def check_resumable(
    run_directory: AnyPath, config: dict[str, Any], description: dict[str, Any]
) -> None:
    """Validates that a run directory holds the run that is about to resume; prints what changed.

    The model and the preprocessing are compared as they were resolved: spelling out a default
    changes nothing. How the model is executed is not stored, so it may change.

    Args:
      run_directory: with a checkpoint.
      config: every option, nested.
      description: see `vit_jax.run.directory.record_run`.

    Raises:
      InputError: if it holds another model, other data or another optimizer.
    """
    old = _resolved(read_json(run_directory / 'config.json'), read_description(run_directory))
    old = {'ema.decay': 0.0} | old  # of runs that are older than this option
    new = _resolved(config, description)
    changes = {
        name: _differing(old.get(name), new.get(name))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    }
    # Without host-side crops and skipped pictures, streaming and memory give identical batches, so
    # memory_gib may change.
    identical = not new['augment.random_resized_crop'] and new['data.on_error'] == 'raise'
    free = (*FREE, 'data.memory_gib') if identical else FREE
    # Options that were added or removed since are only reported.
    forbidden = [
        f'{name}: {before} there, {now} here'
        for name, (before, now) in changes.items()
        if name.startswith(FIXED) and name not in free and name in old and name in new
    ]
    if forbidden:
        raise InputError(
            f'--workdir={run_directory} already holds a different run ({"; ".join(forbidden)}); '
            f'choose another --workdir or restore those values'
        )
    for name, (before, now) in changes.items():
        if name.startswith(OF_A_START):
            continue
        print(f'{run_directory}: {name}: changed from {before} to {now}')


def _resolved(config: dict[str, Any], description: dict[str, Any]) -> dict[str, Any]:
    """Every option by its full name; model and preprocessing as they were resolved."""
    options = flatten_dict(config, sep='.')
    asked = {name: value for name, value in options.items() if not name.startswith('model.')}
    model = {f'model.{name}': value for name, value in description['model'].items()}
    for name in model.keys() & {'model.image_size', 'model.patch_size'}:
        if isinstance(model[name], int):
            model[name] = (model[name], model[name])
    data = description['preprocessing'] | {'class_names': tuple(description['class_names'])}
    return asked | model | {f'data.{name}': value for name, value in data.items()}


def _differing(old: Any, new: Any) -> tuple[Any, Any]:
    """Both values; of long lists only what differs first."""
    if isinstance(old, tuple) and isinstance(new, tuple) and len(old) == len(new) > 4:
        old, new = next((a, b) for a, b in zip(old, new, strict=True) if a != b)
    return old, new
