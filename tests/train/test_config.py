import numpy as np
import pytest

import vit_jax
from vit_jax.errors import InputError
from vit_jax.train.build import find_start
from vit_jax.train.checks import RANGES
from vit_jax.train.length import count_steps
from vit_jax.train.trainer import train


def test_num_steps_overrides_num_epochs(digits_config):
    assert count_steps(digits_config, 1437) == 6
    digits_config.num_steps = None
    digits_config.num_epochs = 2.5
    assert count_steps(digits_config, 100) == 16  # 2.5 * 100 / 16, rounded up
    digits_config.num_epochs = 0.0
    with pytest.raises(InputError, match='expected from 1 to 2,147,483,647 steps, got 0'):
        count_steps(digits_config, 100)


@pytest.mark.parametrize('name', RANGES)
def test_numbers_out_of_range_raise_before_anything_is_written(digits_config, tmp_path, name):
    low, high = map(float, RANGES[name][1:-1].split(', '))
    if RANGES[name].endswith(']'):
        high = np.nextafter(high, np.inf)
    *path, last = name.split('.')
    section = digits_config[path[0]] if path else digits_config
    kind = section.get_type(last)
    bad = [low - 1] + ([high] if high < float('inf') else [])
    for value in [*bad, *([float('nan'), float('inf')] if kind is float else [])]:
        config = digits_config.copy_and_resolve_references()
        config.update_from_flattened_dict({name: kind(value)})
        with pytest.raises(InputError, match=f'^{name}: expected'):
            train(config, str(tmp_path / 'run'))
    assert not (tmp_path / 'run').exists()


def start_model(config):
    return find_start(config, list('0123456789'), 3).model


def test_set_options_override_the_variant():
    config = vit_jax.default_config()
    config.model.variant, config.model.depth, config.model.pool = 'S/16', 6, 'gap'
    config.model.gelu = 'erf'
    model = start_model(config)
    assert (model.dim, model.heads, model.mlp_dim, model.patch_size) == (384, 6, 1536, 16)
    assert (model.depth, model.pool, model.gelu, model.qkv_bias) == (6, 'gap', 'erf', True)


def test_overridden_sizes_of_a_variant_are_noted():
    """So that `--config.model.variant` on a recipe with sizes of its own is not silent."""
    config = vit_jax.default_config()
    config.model.variant, config.model.depth, config.model.dim = 'S/16', 6, 384
    start = find_start(config, ['a', 'b'], 3)
    assert start.notes == ['model.variant=S/16, with depth=6']
    config.model.depth = None
    assert find_start(config, ['a', 'b'], 3).notes == []


def test_unset_options_take_the_models_defaults():
    """So a config without a variant is the seed's model, with sizes for small images."""
    config = vit_jax.default_config()
    assert all(value is None for value in config.model.values())
    sizes = dict(patch_size=4, dim=192, depth=9, heads=3, mlp_dim=768)
    assert start_model(config) == vit_jax.ViT(image_size=(32, 32), num_classes=10, **sizes)
    config.model.dim, config.model.dropout = 96, 0.1
    sizes |= dict(dim=96, dropout=0.1)
    assert start_model(config) == vit_jax.ViT(image_size=(32, 32), num_classes=10, **sizes)
