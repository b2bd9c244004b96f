"""Mutated weight files: they load, or raise one line of error, and nothing in them is run."""

import json
import random

import numpy as np
import pytest
from families import FAMILIES, create
from references.google import random_google
from references.timm import random_timm
from safetensors.numpy import load_file, save_file

from benchmarks.fuzz import mutate
from vit_jax.errors import InputError
from vit_jax.weights import read_weights

TIMM = {
    'timm': dict(registers=2, layer_scale='ls', no_embed_class=True),
    'timm-distilled': dict(distilled=True),
    'timm-map': dict(pool='map', qk_norm=True, class_token=False),
    'timm-clip': dict(pre_norm=True),
    'timm-gated': dict(gated=True, head=False),
}


def write_weights(name, folder):
    """Weights of a format and the file that describes them, if it has one."""
    rng = np.random.default_rng(0)
    path = folder / 'model.safetensors'
    if name in FAMILIES:
        create(name).save_pretrained(folder)
    elif name == 'google':
        save_file(random_google(rng, flavour='big_vision', pool='map'), path)
        return path
    else:
        save_file(random_timm(rng, **TIMM[name]), path)
        described = dict(architecture='vit', num_classes=5, global_pool='token', num_features=32)
        described['pretrained_cfg'] = dict(mean=[0.5] * 3, std=[0.5] * 3, crop_pct=0.9)
        described['model_args'] = dict(num_heads=2, act_layer='gelu')
        (folder / 'config.json').write_text(json.dumps(described))
    return folder


@pytest.mark.parametrize('count', [20, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize('name', [*FAMILIES, *TIMM, 'google'])
def test_mutated_files_load_or_raise_input_errors(name, count, tmp_path):
    path = write_weights(name, tmp_path)
    arrays = load_file(tmp_path / 'model.safetensors')
    original = {file: file.read_bytes() for file in tmp_path.iterdir()}
    rng = np.random.default_rng(list(name.encode()))
    outcomes = set()
    for _ in range(count):
        for file, content in original.items():
            file.write_bytes(content)
        for _ in range(rng.choice((1, 1, 2))):
            mutate_one(tmp_path, arrays, rng)
        try:
            read_weights(path, heads=2)
            outcomes.add('loaded')
        except InputError as error:
            assert '\n' not in str(error)
            outcomes.add('refused')
    assert outcomes == {'loaded', 'refused'}


def mutate_one(folder, arrays, rng):
    """Changes the arrays, the config or the bytes of a header."""
    path, config = folder / 'model.safetensors', folder / 'config.json'
    kind = rng.integers(3)
    if kind == 0:
        save_file(mutate_arrays(arrays, rng), path)
    elif kind == 1 and config.exists():
        config.write_text(json.dumps(mutate_config(json.loads(config.read_text()), rng)))
    else:
        content = path.read_bytes()
        header = 8 + int.from_bytes(content[:8], 'little')
        changed = mutate(content[:header], random.Random(int(rng.integers(2**32))))
        path.write_bytes(changed + content[header:])


def mutate_arrays(arrays, rng):
    """One array renamed, removed, copied, or of another shape."""
    arrays = dict(arrays)
    name = str(rng.choice(sorted(arrays)))
    array = arrays.pop(name)
    kind = rng.integers(5)
    if kind == 0:
        place = int(rng.integers(len(name)))
        arrays[name[:place] + str(rng.choice(list('x.0{/'))) + name[place + 1 :]] = array
    elif kind == 1:
        arrays |= {name: array, str(rng.choice(['a', 'b.', '.'])) + name: array}
    elif kind == 2:
        shapes = [array.shape[1:], (1, *array.shape), (0, *array.shape[1:]), array.shape[::-1]]
        arrays[name] = np.zeros(shapes[int(rng.integers(4))], np.float32)
    elif kind == 3:
        arrays[name] = array.repeat(2, axis=int(rng.integers(array.ndim)))
    return arrays


def mutate_config(config, rng):
    """One value removed or replaced, on either level."""
    config = json.loads(json.dumps(config))
    level = config
    if 'vision_config' in config and rng.random() < 0.5:
        level = config['vision_config']
    values = [None, True, -1, 0, 1, 2.5, 10**9, 1e300, '', 'gelu', [], [4, 4], {}, [[1]], 'ü\n']
    name = str(rng.choice(sorted(level)))
    if rng.random() < 0.1:
        del level[name]
    else:
        level[name] = values[int(rng.integers(len(values)))]
    return config
