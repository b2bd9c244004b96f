"""A Hugging Face folder: `config.json`, weights and preprocessing.

timm's folders on the hub have a `config.json` too, of another kind.

Source: https://github.com/huggingface/transformers.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from vit_jax.errors import InputError
from vit_jax.model.vit import ViT
from vit_jax.run.json_files import read_json
from vit_jax.weights import timm
from vit_jax.weights.accounting import shorten
from vit_jax.weights.families import choose, find
from vit_jax.weights.files import Arrays, Tensors, read_tensors, write_tensors
from vit_jax.weights.infer import shape_of
from vit_jax.weights.processor import read_processor, write_processor

FILES = ('model.safetensors', 'pytorch_model.bin')


def read_folder(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """A folder's arrays, and the metadata in its JSON.

    Returns:
      The arrays as their family has unpacked them; and 'arguments', 'description' and 'notes', and
      for a folder of transformers the family as 'layout'.

    Raises:
      InputError: if a file is missing or damaged, or the model is not a ViT that we support.
    """
    config = read_json(path / 'config.json')
    if not isinstance(config, dict) or not {'model_type', 'architecture'} & config.keys():
        raise InputError(
            f"{path}: expected Hugging Face's or timm's config.json, but it is neither"
        )
    tensors = _read_files(path)
    if 'model_type' not in config:
        return tensors, timm.read_config(config)
    try:
        family, vision = find(config, tensors)
        tensors, notes = family.open(tensors, vision)
        arguments = family.arguments(vision, tensors)
    except InputError as error:
        raise InputError(f'{path}: {error}') from None
    processor = path / 'preprocessor_config.json'
    description: dict[str, Any] = {}
    if processor.is_file():
        description, more = read_processor(read_json(processor), arguments['image_size'])
        notes += more
    names = config.get('id2label')
    if isinstance(names, dict) and family.HEAD_ARRAY in tensors and family.has_names:
        count = shape_of(tensors, family.HEAD_ARRAY, 2)[0]
        if names.keys() != {str(label) for label in range(count)}:
            raise InputError(f'{path}: expected id2label with {count} classes, got {len(names)}')
        class_names = [str(names[str(label)]) for label in range(count)]
        if class_names != _placeholders(count):
            description['class_names'] = class_names
    metadata = {'arguments': arguments, 'description': description, 'notes': notes}
    return tensors, metadata | {'layout': family}


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
    family = choose(model)
    arrays = family.packed(arrays, model)
    config = family.config(model, arrays)
    if family.has_names and model.num_classes:
        names = description.get('class_names') or _placeholders(model.num_classes)
        config['id2label'] = {str(label): name for label, name in enumerate(names)}
        config['label2id'] = {name: label for label, name in enumerate(names)}
    temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    try:
        temporary.mkdir()
    except OSError as error:
        raise InputError(f'{path}: cannot be written: {error}') from None
    try:
        (temporary / 'config.json').write_text(json.dumps(config, indent=2) + '\n')
        if preprocessing := description.get('preprocessing'):
            processor = write_processor(model, preprocessing)
            text = json.dumps(processor, indent=2) + '\n'
            (temporary / 'preprocessor_config.json').write_text(text)
        write_tensors(temporary / FILES[0], arrays, model, description, format='pt')
        if path.exists():
            path.rmdir()
        temporary.rename(path)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise InputError(f'{path}: cannot be written: {error}') from None


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
