"""`description.json`: what using a trained model takes, and which run its checkpoints belong to."""

from typing import Any

from vit_jax.errors import InputError
from vit_jax.run.json_files import read_json
from vit_jax.run.storage import AnyPath

KINDS = {'model': dict, 'preprocessing': dict, 'class_names': tuple}


def read_description(run_directory: AnyPath) -> dict[str, Any]:
    """The description of a run.

    Returns:
      'model' (the ViT's arguments), 'preprocessing' (of `vit_jax.data.preprocess.Preprocessing`),
      'class_names'; 'multi_label', whether a picture may have any number of classes, as opposed to
      exactly one; and 'run', the random name of the run; None if it is older than such names.

    Raises:
      InputError: if it is missing or damaged.
    """
    path = run_directory / 'description.json'
    description = read_json(path)
    for key, kind in KINDS.items():
        if not isinstance(description.get(key), kind):
            raise InputError(f'{path}: expected {key!r}, a {kind.__name__}: the file is damaged')
    return {'run': None, 'multi_label': False} | description
