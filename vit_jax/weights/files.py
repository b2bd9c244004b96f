"""Files of named arrays: `.safetensors`, and PyTorch's `.pt`. Reading one never runs its code."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy

from vit_jax.arguments import EXECUTION, pair
from vit_jax.errors import InputError
from vit_jax.model import ViT
from vit_jax.run_directory import parse_json

Tensors = dict[str, np.ndarray]


def abstract_variables(model: ViT) -> Any:
    """Shapes and dtypes of a model's variables, for no memory."""
    images = jax.ShapeDtypeStruct((1, *pair(model.image_size), model.channels), np.float32)
    return jax.eval_shape(model.init, jax.random.key(0), images)


def read_tensors(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """Reads every array of a file.

    Returns:
      The arrays by name, and the ViT's arguments where `write_tensors` took them down, else {}.

    Raises:
      InputError: where there is no such file, it is damaged, or holds something else.
    """
    if not path.is_file():
        raise InputError(f'{path}: no such file or run directory')
    try:
        if path.suffix == '.safetensors':
            with safetensors.safe_open(path, 'numpy') as file:
                arguments = parse_json((file.metadata() or {}).get('vit_jax', '{}'))
                return {name: file.get_tensor(name) for name in file.keys()}, arguments  # noqa: SIM118
        if path.suffix in ('.pt', '.pth'):
            return _read_torch(path), {}
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise InputError(f'{path}: expected a {path.suffix} file, but: {error}') from None
    raise InputError(f'{path}: expected a file ending in .safetensors, .pt or .pth')


def write_tensors(path: Path, tensors: Tensors, model: ViT) -> None:
    """Writes arrays, whole or not at all.

    Raises:
      InputError: where the ending is unknown, or the file cannot be written.
    """
    if path.suffix not in ('.safetensors', '.pt', '.pth'):
        raise InputError(f'{path}: expected a file ending in .safetensors, .pt or .pth')
    if not path.parent.is_dir():
        raise InputError(f'{path}: expected a file in a folder that exists')
    temporary = path.with_name(path.name + '.tmp')
    try:
        if path.suffix == '.safetensors':
            arguments = {
                field.name: getattr(model, field.name)
                for field in dataclasses.fields(model)
                if field.name not in ('parent', 'name', *EXECUTION)
            }
            safetensors.numpy.save_file(tensors, temporary, {'vit_jax': json.dumps(arguments)})
        else:
            torch = _import_torch(path)
            torch.save({k: torch.from_numpy(v) for k, v in tensors.items()}, temporary)
        temporary.replace(path)
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f'{path}: expected a place that can be written, got: {error}') from None


def _read_torch(path: Path) -> Tensors:
    torch = _import_torch(path)
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged or a forbidden file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f'{path}: expected a state dict of tensors, but: {reason}') from None
    if not (isinstance(content, dict) and all(map(torch.is_tensor, content.values()))):
        raise InputError(f'{path}: expected a state dict of tensors, got {type(content).__name__}')
    return {name: tensor.detach().float().numpy() for name, tensor in content.items()}


def _import_torch(path: Path) -> Any:
    try:
        import torch
    except ModuleNotFoundError:
        raise InputError(
            f'{path}: {path.suffix} needs PyTorch; install torch, or convert to .safetensors'
        ) from None
    return torch
