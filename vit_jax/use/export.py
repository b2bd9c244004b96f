"""A trained model as one file that runs without this package: StableHLO, by `jax.export`."""

import hashlib
import math
import os
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.data.preprocess import Preprocessing
from vit_jax.errors import InputError
from vit_jax.model.shapes import pair, parameter_shapes
from vit_jax.run.json_files import write_json
from vit_jax.use.answer import probabilities
from vit_jax.weights.reading import Weights, check_classifies

PLATFORMS = ('cpu', 'cuda', 'tpu')  # in one file
MAX_BYTES = 2**31 - 2**24  # of parameters: the files' offsets have 31 bits


def write_stablehlo(
    weights: Weights, path: str | os.PathLike[str], preprocessing: Preprocessing
) -> None:
    """Writes a model as StableHLO, and its description beside it, see `write_export`.

    `jax.export.deserialize(data).call` takes uint8 pictures [b, h, w, c] of the model's size, with
    any b, and returns probabilities [b, num_classes], float32; the description's
    'multi_label' says whether they are sigmoids or sum to 1. It computes in the model's dtype, on
    `PLATFORMS`, with XLA's attention.

    Reference: https://docs.jax.dev/en/latest/export/export.html

    Args:
      weights: from `vit_jax.weights.read_weights`.
      path: of the file.
      preprocessing: of the model's pictures; its normalisation is part of the exported function.

    Raises:
      InputError: if the model is too large, or the file cannot be written.
    """
    path = checked(path, weights)
    (batch,) = jax.export.symbolic_shape('b')
    images = jax.ShapeDtypeStruct((batch, *preprocessing.shape), jnp.uint8)
    model = weights.model.clone(attention='xla', remat='none')
    variables = jax.tree.map(jnp.asarray, weights.variables)
    function = jax.jit(
        partial(probabilities, model, preprocessing, variables, multi_label=weights.multi_label)
    )
    exported = jax.export.export(function, platforms=PLATFORMS)(images)
    versions = {'platforms': PLATFORMS, 'jax': jax.__version__}
    write_export(path, bytes(exported.serialize()), weights, preprocessing, versions)


def checked(path: str | os.PathLike[str], weights: Weights) -> Path:
    """The path of a model that can be exported.

    Raises:
      InputError: if the model is too large or has no classifier, or the path is in no folder.
    """
    check_classifies(weights.model, weights.name)
    path = Path(path)
    size = 4 * sum(map(math.prod, parameter_shapes(weights.model).values()))
    if size > MAX_BYTES:
        raise InputError(
            f'{weights.name}: expected parameters of at most {MAX_BYTES:,} bytes, which one file '
            f'can hold, got {size:,}'
        )
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f'{path}: expected a file in an existing folder')
    return path


def write_export(
    path: Path,
    data: bytes,
    weights: Weights,
    preprocessing: Preprocessing,
    made_by: dict[str, Any],
) -> None:
    """Writes an exported model atomically, then its description: the file PATH.json.

    Args:
      path: of the model.
      data: that it consists of.
      weights, preprocessing: see `write_stablehlo`.
      made_by: what else the description says.

    Raises:
      InputError: if they cannot be written.
    """
    temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
        write_json(description_path(path), describe(data, weights, preprocessing) | made_by)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f'{path}: cannot be written: {error.strerror}') from None


def description_path(path: Path) -> Path:
    return path.with_name(f'{path.name}.json')


def describe(data: bytes, weights: Weights, preprocessing: Preprocessing) -> dict[str, Any]:
    """What a program needs to know of an exported model, as JSON."""
    model = weights.model
    return {
        'class_names': weights.class_names,
        'multi_label': weights.multi_label,
        'image_size': list(preprocessing.image_size),
        'patch_size': list(pair(model.patch_size)),
        'channels': preprocessing.channels,
        'crop_fraction': preprocessing.crop_fraction,
        'normalized_inside': {
            'mean': np.ravel(preprocessing.mean).tolist(),
            'std': np.ravel(preprocessing.std).tolist(),
        },
        'layers': model.depth,
        'heads': model.heads,
        'parameters': sum(x.size for x in jax.tree.leaves(weights.variables)),
        'dtype': model.dtype,
        'source': Path(weights.name).name,
        'sha256': hashlib.sha256(data).hexdigest(),
    }
