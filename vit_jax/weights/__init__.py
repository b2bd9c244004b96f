"""Weights from and to other formats, one file a format."""

import os
from pathlib import Path
from typing import Any

from vit_jax.errors import InputError
from vit_jax.model import ViT
from vit_jax.weights import seed
from vit_jax.weights.files import read_tensors, write_tensors
from vit_jax.weights.run import load_run


def load_weights(path: str | os.PathLike[str], **overrides: Any) -> tuple[ViT, dict[str, Any]]:
    """Reads a model and its variables.

    Args:
      path: a run directory, or a file with vit-pytorch's state dict: `.safetensors`, or `.pt` and
        `.pth` (read with `weights_only=True`; needs torch).
      **overrides: the ViT's own arguments, for what a file cannot tell. vit-pytorch's needs
        `heads=`; patches and image are taken to be square unless `patch_size=` and `image_size=`
        say otherwise; `pool=`, `dropout=` and `dtype=` are free.

    Returns:
      The model, and `{'params': …}`, float32, as `ViT.init` lays them out.

    Raises:
      InputError: where the file is missing, damaged, of an unknown format, lacks or has additional
        parameters, or does not fit the overrides.
    """
    path = Path(path)
    if path.is_dir():
        model, variables, _ = load_run(path, **overrides)
        return model, variables
    tensors, metadata = read_tensors(path)
    if not seed.recognises(tensors):
        known = ', '.join(sorted(tensors)[:3])
        raise InputError(f"{path}: expected vit-pytorch's state dict, got parameters {known}, …")
    return seed.to_flax(tensors, {**metadata, **overrides}, name=str(path))


def save_weights(
    path: str | os.PathLike[str], model: ViT, variables: dict[str, Any], format: str
) -> None:
    """Writes variables in a foreign format.

    Args:
      path: a `.safetensors` file, which also takes down the ViT's arguments, or `.pt` (needs
        torch).
      model, variables: as `load_weights` or `ViT.init` gives them.
      format: 'seed', vit-pytorch's state dict.

    Raises:
      InputError: where the format or the ending is unknown, the format cannot express the model, or
        the file cannot be written.
    """
    if format != 'seed':
        raise InputError(f"format: expected 'seed', got {format!r}")
    write_tensors(Path(path), seed.from_flax(model, variables['params']), model)
