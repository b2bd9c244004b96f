"""A Hugging Face folder: `config.json`, weights and preprocessing.

timm's folders on the hub have a `config.json` too, of another kind.

Source: https://github.com/huggingface/transformers, `models/vit`.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from vit_jax.errors import InputError
from vit_jax.model.shapes import pair
from vit_jax.model.vit import ViT
from vit_jax.run.json_files import read_json
from vit_jax.weights import timm
from vit_jax.weights.accounting import shorten
from vit_jax.weights.files import Arrays, Tensors, read_tensors, write_tensors
from vit_jax.weights.huggingface import HEAD_ARRAY
from vit_jax.weights.infer import shape_of

GELUS = {'gelu': 'erf', 'gelu_python': 'erf', 'gelu_new': 'tanh', 'gelu_pytorch_tanh': 'tanh'}
FILES = ('model.safetensors', 'pytorch_model.bin')


def read_folder(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """A folder's arrays, and the metadata in its JSON: 'arguments', 'description', 'notes'.

    Raises:
      InputError: if a file is missing or damaged, or the model is not a ViT.
    """
    config = read_json(path / 'config.json')
    if not isinstance(config, dict) or not {'model_type', 'architecture'} & config.keys():
        raise InputError(
            f"{path}: expected Hugging Face's or timm's config.json, but it is neither"
        )
    tensors = _read_files(path)
    if 'model_type' not in config:
        return tensors, timm.read_config(config)
    if config['model_type'] != 'vit':
        raise InputError(f"{path}: expected model_type 'vit', got {config['model_type']!r}")
    processor = path / 'preprocessor_config.json'
    description: dict[str, Any] = {}
    notes: list[str] = []
    if processor.is_file():
        description, notes = _preprocessing(read_json(processor))
    names = config.get('id2label')
    if isinstance(names, dict) and HEAD_ARRAY in tensors:
        count = shape_of(tensors, HEAD_ARRAY, 2)[0]
        if names.keys() != {str(label) for label in range(count)}:
            raise InputError(f'{path}: expected id2label with {count} classes, got {len(names)}')
        class_names = [str(names[str(label)]) for label in range(count)]
        if class_names != _placeholders(count):
            description['class_names'] = class_names
    arguments = _arguments(path, config)
    return tensors, {'arguments': arguments, 'description': description, 'notes': notes}


def write_folder(path: Path, arrays: Arrays, model: ViT, description: dict[str, Any]) -> None:
    """Writes a folder that `from_pretrained` reads, atomically.

    Raises:
      InputError: if the folder exists and is not empty, or cannot be written.
    """
    taken = path.exists() and (not path.is_dir() or any(path.iterdir()))
    if taken:
        raise InputError(f'{path}: it exists already; expected a new folder')
    if not path.name or not path.parent.is_dir():
        raise InputError(f'{path}: expected a new folder in one that exists')
    class_names = description.get('class_names')
    names = class_names or _placeholders(model.num_classes)
    config = {
        'architectures': ['ViTForImageClassification' if model.num_classes else 'ViTModel'],
        'model_type': 'vit',
        'hidden_size': model.dim,
        'num_hidden_layers': model.depth,
        'num_attention_heads': model.heads,
        'intermediate_size': model.mlp_dim,
        'hidden_act': 'gelu' if model.gelu == 'erf' else 'gelu_pytorch_tanh',
        'layer_norm_eps': model.norm_eps,
        'image_size': model.image_size,
        'patch_size': model.patch_size,
        'num_channels': model.channels,
        'qkv_bias': model.qkv_bias,
        'id2label': {str(label): name for label, name in enumerate(names)},
        'label2id': {name: label for label, name in enumerate(names)},
    }
    temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    try:
        temporary.mkdir()
    except OSError as error:
        raise InputError(f'{path}: cannot be written: {error}') from None
    try:
        (temporary / 'config.json').write_text(json.dumps(config, indent=2) + '\n')
        if preprocessing := description.get('preprocessing'):
            height, width = pair(model.image_size)
            processor = {
                'image_processor_type': 'ViTImageProcessor',
                'image_mean': _per_channel(preprocessing['mean'], model.channels),
                'image_std': _per_channel(preprocessing['std'], model.channels),
                'size': {'height': height, 'width': width},
                'resample': 2,
            }
            text = json.dumps(processor, indent=2) + '\n'
            (temporary / 'preprocessor_config.json').write_text(text)
        write_tensors(temporary / FILES[0], arrays, model, description, format='pt')
        if path.exists():
            path.rmdir()
        temporary.rename(path)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise InputError(f'{path}: cannot be written: {error}') from None


def _arguments(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The ViT's arguments in `config.json`.

    Raises:
      InputError: if one is missing, or our ViT does not support it.
    """
    act = config.get('hidden_act')
    if act not in list(GELUS):
        raise InputError(
            f'{path}: expected hidden_act to be one of {", ".join(GELUS)}, got {act!r}'
        )
    if config.get('pooler_act', 'tanh') != 'tanh':
        raise InputError(f"{path}: expected pooler_act 'tanh', got {config['pooler_act']!r}")
    arguments = {
        'heads': config.get('num_attention_heads'),
        'norm_eps': config.get('layer_norm_eps'),
        'image_size': config.get('image_size'),
        'depth': config.get('num_hidden_layers'),
        'dim': config.get('hidden_size'),
        'mlp_dim': config.get('intermediate_size'),
        'patch_size': config.get('patch_size'),
        'channels': config.get('num_channels'),
    }
    for name, value in arguments.items():
        if not isinstance(value, (int, float, tuple)) or isinstance(value, bool):
            raise InputError(f'{path}: config.json has {value!r} for {name}, expected a number')
    return arguments | {'gelu': GELUS[act], 'qkv_bias': bool(config.get('qkv_bias', True))}


def _preprocessing(config: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Mean and std for pixels in [0, 1], and notes on resizing that differs from ours."""
    if not {'image_mean', 'image_std'} <= config.keys():
        return {}, []
    normalize, rescale = config.get('do_normalize', True), config.get('do_rescale', True)
    scale = 255 * (config.get('rescale_factor', 1 / 255) if rescale else 1)
    mean = config['image_mean'] if normalize else (0.0,)
    std = config['image_std'] if normalize else (1.0,)
    normalisation = {'mean': tuple(x / scale for x in mean), 'std': tuple(x / scale for x in std)}
    others = {'do_center_crop': (None, False), 'do_resize': (None, True), 'resample': (None, 2)}
    return {'preprocessing': normalisation}, timm.differing(config, others)


def _read_files(path: Path) -> Tensors:
    """The arrays of a folder, in one file or in shards that an index lists.

    Raises:
      InputError: if there are none.
    """
    for name in FILES:
        if (path / name).is_file():
            return read_tensors(path / name)[0]
        if (path / f'{name}.index.json').is_file():
            shards = set(read_json(path / f'{name}.index.json')['weight_map'].values())
            if any(Path(shard).name != shard for shard in shards):
                raise InputError(
                    f'{path}: expected an index of files in this folder, got {shorten(shards)}'
                )
            return {
                k: x for shard in sorted(shards) for k, x in read_tensors(path / shard)[0].items()
            }
    raise InputError(f'{path}: expected {" or ".join(FILES)}, but there is neither')


def _placeholders(count: int) -> list[str]:
    """The names that transformers gives to unnamed classes."""
    return [f'LABEL_{label}' for label in range(count)]


def _per_channel(values: tuple[float, ...], channels: int) -> list[float]:
    return list(values) * (channels // len(values))
